"""Where things are in the patient: grids, rigid transforms, closed-form fits, resampling. LPS, mm."""

from .grid import Grid as Grid
from .orientation import (
    codes_like as codes_like,
)
from .orientation import (
    orientation_code as orientation_code,
)
from .orientation import (
    orientation_rotations as orientation_rotations,
)
from .orientation import (
    rotation_of_code as rotation_of_code,
)
from .resampling import (
    grid_overlap as grid_overlap,
)
from .resampling import (
    inside_fraction as inside_fraction,
)
from .resampling import (
    resample as resample,
)
from .resampling import (
    resample_labels as resample_labels,
)
from .resampling import (
    sample as sample,
)
from .rigid import (
    Rigid as Rigid,
)
from .rigid import (
    axis_orientations as axis_orientations,
)
from .rigid import (
    draw_perturbation as draw_perturbation,
)
from .rigid import (
    euler_to_rotation as euler_to_rotation,
)
from .rigid import (
    mean_displacement_mm as mean_displacement_mm,
)
from .rigid import (
    quarter_turn as quarter_turn,
)
from .rigid import (
    rotation_to_euler as rotation_to_euler,
)
