"""What pairs of random shapes are drawn from; the defaults are wide."""

from dataclasses import dataclass, field

from crossalign.errors import InputError
from crossalign.simulation.settings import DeformationSettings, PoseSettings, Range, check_ranges


@dataclass(frozen=True)
class ShapeSettings:
    """Scenes of random shapes and two modalities that show them."""

    radius_mm: Range = (14.0, 34.0)
    """Mean half axis of the main shape."""
    asymmetry_mm: Range = (0.3, 3.5)
    """Root mean square displacement of the scene by plane waves."""
    density: Range = (0.3, 1.0)
    """Probability of each of the shapes around and inside the main one."""
    rotation_deg: Range = (0.0, 25.0)
    """Rotation of a scene about each axis, after any of the 48 axis orientations."""
    related_fraction: float = 0.5
    """Fraction of the pairs that show one property through two maps; in the others each image has its own."""
    monotone_fraction: float = 0.4
    """Fraction of the maps from property to intensity that rise or fall throughout."""
    hidden_fraction: float = 0.15
    """Fraction of the shapes that an image does not show."""
    texture: Range = (0.0, 0.12)
    """Strength of plane waves of the property, which both images show."""
    grain: Range = (0.02, 0.25)
    """Strength of each image's own texture."""
    speckle: Range = (0.0, 0.4)
    """Strength of each image's speckle."""
    noise: Range = (0.002, 0.04)
    """Standard deviation of the noise."""
    bias: Range = (0.0, 0.4)
    """Strength of smooth shading."""
    slice_mm: Range = (1.5, 4.0)
    """Thickness of the slices, along any axis."""
    blur_mm: Range = (0.6, 4.0)
    """Standard deviation of the blur."""
    partial_fraction: float = 0.6
    """Fraction of the images whose field of view is a box, a ball or a cone."""
    edge_mm: Range = (0.5, 10.0)
    """Width over which a field of view fades."""
    pose: PoseSettings = field(default_factory=PoseSettings)
    """Where the main shape lies in the two scans."""
    deformation: DeformationSettings = field(default_factory=DeformationSettings)
    """How it differs between them."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.radius_mm[0] < 5 or self.edge_mm[0] <= 0 or self.density[1] > 1:
            raise InputError(
                "ShapeSettings needs radius_mm of 5 or more, edge_mm over 0 and density in 0..1, "
                f"got {self.radius_mm}, {self.edge_mm} and {self.density}"
            )
        if self.pose.rotated_fraction:
            raise InputError(
                "ShapeSettings.pose.rotated_fraction must be 0, since all axis orientations occur anyway, "
                f"got {self.pose.rotated_fraction}"
            )
