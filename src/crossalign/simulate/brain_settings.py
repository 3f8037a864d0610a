"""What simulated brains are drawn from."""

from dataclasses import dataclass, fields

from crossalign.errors import InputError
from crossalign.simulate.settings import Range


@dataclass(frozen=True)
class BrainSettings:
    """Heads, their MRI and their PET. The defaults are wide, so that real pairs lie inside them.

    `spacing_mm` is the voxel size. `bend_mm` and `fold_mm` are the rms displacements of long (50 to 120 mm) and short
    (14 to 30 mm) waves. `skull_share` of the heads keep skull and scalp, `mri_stripped_share` and
    `pet_stripped_share` of those lose them in one modality. Lesion counts are the most of each kind in a head.
    """

    spacing_mm: Range = (1.0, 2.2)
    turn_deg: float = 15.0
    stretch: float = 0.15
    bend_mm: Range = (2.0, 8.0)
    fold_mm: Range = (0.0, 1.5)
    skull_share: float = 0.6
    mri_stripped_share: float = 0.1
    pet_stripped_share: float = 0.25
    inverted_share: float = 0.15
    mri_blur_mm: Range = (0.0, 2.5)
    smooth_share: float = 0.25
    mri_noise: Range = (0.0, 0.03)
    mri_lesions: int = 4
    pet_blur_mm: Range = (4.0, 8.0)
    pet_noise: Range = (0.0, 0.12)
    hot_lesions: int = 2
    cold_lesions: int = 2
    hypometabolic_regions: int = 3

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple) and not (len(value) == 2 and 0 <= value[0] <= value[1] < 1e3):
                raise InputError(f"BrainSettings.{item.name} must be a range (low, high) from 0 upwards, got {value}")
            if item.name.endswith("_share") and not 0 <= value <= 1:
                raise InputError(f"BrainSettings.{item.name} must lie in 0..1, got {value}")
            if not isinstance(value, tuple) and value < 0:
                raise InputError(f"BrainSettings.{item.name} must be 0 or more, got {value}")
        if self.spacing_mm[0] <= 0:
            raise InputError(f"BrainSettings.spacing_mm must be over 0, got {self.spacing_mm}")
