"""What simulated heads are drawn from. Standard library only: the command line makes its options from these."""

import math
from dataclasses import dataclass

from crossalign.errors import SettingError
from crossalign.fields import check_bounds
from crossalign.simulation.settings import Range, check_ranges


@dataclass(frozen=True)
class HeadSettings:
    """Heads, their MRI and their PET. The defaults are wide, so that real pairs lie inside them."""

    spacing_mm: Range = (1.0, 2.2)
    """Size of the voxels, mm."""
    rotation_deg: float = 15.0
    """Largest rotation about each axis, degrees."""
    stretch: float = 0.15
    """Largest stretching along each axis: a fraction of the size."""
    long_waves_mm: Range = (2.0, 8.0)
    """Root mean square displacement by waves of 50 to 120 mm."""
    short_waves_mm: Range = (0.0, 1.5)
    """Root mean square displacement by waves of 14 to 30 mm."""
    skull_fraction: float = 0.6
    """Fraction of the heads that keep skull and scalp."""
    mri_stripped_fraction: float = 0.1
    """Fraction of these that lose them in the MRI."""
    pet_stripped_fraction: float = 0.25
    """Fraction of these that lose them in the PET."""
    inverted_fraction: float = 0.15
    """Fraction of the MRIs whose contrast is inverted, as T2's."""
    mri_blur_mm: Range = (0.0, 2.5)
    """Full width at half maximum of the MRI's blur, mm."""
    smooth_fraction: float = 0.25
    """Fraction of the MRIs that are smooth."""
    mri_noise: Range = (0.0, 0.03)
    """Standard deviation of the MRI's noise: a fraction of its scale."""
    mri_lesions: int = 4
    """Most lesions in the MRI of a head."""
    pet_blur_mm: Range = (4.0, 8.0)
    """Full width at half maximum of the PET's blur, mm."""
    pet_noise: Range = (0.0, 0.12)
    """Standard deviation of the PET's noise: a fraction of its scale."""
    hot_lesions: int = 2
    """Most lesions with a raised uptake."""
    cold_lesions: int = 2
    """Most lesions with a lowered uptake."""
    hypometabolic_regions: int = 3
    """Most regions with a slightly lowered uptake."""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_bounds(self, {name: (0, math.inf) for name, value in vars(self).items() if not isinstance(value, tuple)})
        if self.spacing_mm[0] <= 0:
            raise SettingError("spacing_mm", f"must be over 0, got {self.spacing_mm}")
