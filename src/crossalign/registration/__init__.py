"""register(fixed, moving, method, initial, fixed_mask) -> RegistrationResult, and the methods."""

from crossalign.registration.cascade import (
    Cascade,
    load_cascade,
)
from crossalign.registration.ensemble import (
    Consensus,
    average_rigid,
)
from crossalign.registration.initialisation import (
    Initialisation,
    center_initialisation,
    choose_initialisation,
    header_initialisation,
    mask_center_initialisation,
)
from crossalign.registration.iterative.mutual_information import (
    MutualInformation,
)
from crossalign.registration.methods import (
    default_method_name,
    method_names,
    named_method,
)
from crossalign.registration.problem import (
    Expectation,
    Identity,
    Method,
    Problem,
    Solution,
    Step,
)
from crossalign.registration.result import (
    RegistrationResult,
    register,
)

__all__ = [
    "Cascade",
    "Consensus",
    "Expectation",
    "Identity",
    "Method",
    "MutualInformation",
    "Problem",
    "RegistrationResult",
    "Solution",
    "Initialisation",
    "Step",
    "average_rigid",
    "center_initialisation",
    "choose_initialisation",
    "default_method_name",
    "header_initialisation",
    "load_cascade",
    "mask_center_initialisation",
    "method_names",
    "named_method",
    "register",
]
