"""register(fixed, moving, method, initial, fixed_mask) -> RegistrationResult, and the methods."""

from .consensus import Consensus as Consensus
from .consensus import average_rigid as average_rigid
from .initialisation import (
    Initialisation as Initialisation,
)
from .initialisation import (
    center_initialisation as center_initialisation,
)
from .initialisation import (
    choose_initialisation as choose_initialisation,
)
from .initialisation import (
    mask_center_initialisation as mask_center_initialisation,
)
from .initialisation import (
    masks_initialisation as masks_initialisation,
)
from .iterative.mutual_information import MutualInformation as MutualInformation
from .iterative.surface import SurfaceRegistration as SurfaceRegistration
from .landmarks import LandmarkFit as LandmarkFit
from .landmarks import fit_landmarks as fit_landmarks
from .methods import (
    default_method_name as default_method_name,
)
from .methods import (
    method_names as method_names,
)
from .methods import (
    named_method as named_method,
)
from .network_registration import NetworkRegistration as NetworkRegistration
from .problem import (
    Application as Application,
)
from .problem import (
    Expectation as Expectation,
)
from .problem import (
    Identity as Identity,
)
from .problem import (
    Method as Method,
)
from .problem import (
    Problem as Problem,
)
from .problem import (
    Solution as Solution,
)
from .problem import (
    Step as Step,
)
from .result import RegistrationResult as RegistrationResult
from .result import register as register
