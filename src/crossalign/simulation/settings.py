"""What is simulated, and how widely: every part of the anatomy and of the physics has its range and its switch.

Set a range to (0, 0), a fraction to 0 or a switch to False to leave that part out; the other parts keep their draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, TypeAlias

from crossalign.errors import SettingError

# int is spelt out because the tests check types at run time, where 0 is not a float.
Range: TypeAlias = tuple[float | int, float | int]


def check_ranges(settings: object, lowest: float = 0.0) -> None:
    """Raise SettingError where a range does not run upwards from `lowest`, or a fraction is none."""
    for item in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        if isinstance(value, tuple) and not (len(value) == 2 and lowest <= value[0] <= value[1] < 1e6):
            problem = f"must be a range (low, high) with {lowest:g} <= low <= high, got {value}"
            raise SettingError(item.name, problem)
        if item.name.endswith("_fraction") and not 0.0 <= value <= 1.0:
            raise SettingError(item.name, f"must lie in 0..1, got {value}")


@dataclass(frozen=True)
class AnatomySettings:
    """The pelvis."""

    volume_ml: Range = (15.0, 150.0)
    """Volume of the prostate; mostly in the middle of the range, as in published pairs (27 to 168 ml, median 80)."""
    asymmetry_mm: Range = (0.3, 2.0)
    """Root mean square displacement of the whole pelvis by plane waves."""
    taper_x: Range = (0.0, 0.42)
    """Fraction by which cross-sections shrink in x for a half height towards the apex."""
    taper_y: Range = (-0.02, 0.32)
    """The same in y."""
    barrel: Range = (0.4, 0.75)
    """Fraction by which cross-sections shrink towards both ends."""
    hollow: Range = (0.0, 0.35)
    """Depth of the hollow in the back, relative to the half depth."""
    lean: Range = (-0.13, 0.27)
    """How far the base leans back, relative to the half depth."""
    nodules: bool = True
    """Nodules in the prostate."""
    lesions: bool = True
    """Lesions in the prostate."""
    cysts: bool = True
    """Cysts in the prostate."""
    calcifications: bool = True
    """Calcifications in the prostate."""
    surroundings: bool = True
    """Whatever lies around the prostate."""

    def __post_init__(self) -> None:
        check_ranges(self, -0.5)
        if not 5.0 <= self.volume_ml[0] <= self.volume_ml[1] <= 300.0:
            raise SettingError("volume_ml", f"must lie in 5..300 ml, got {self.volume_ml}")


@dataclass(frozen=True)
class PoseSettings:
    """Where the structure lies in the two scans."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"turned_share": "rotated_fraction"}  # in files of earlier versions

    rotation_deg: Range = (0.0, 22.0)
    """Rotation between the scans about each axis."""
    translation_mm: Range = (0.0, 15.0)
    """Translation between the scans along each axis."""
    fixed_offset_mm: Range = (0.0, 10.0)
    """Distance of the structure from the fixed image's centre along each axis."""
    rotated_fraction: float = 0.0
    """Fraction of the pairs whose scans are both rotated by 90, 180 or 270 degrees about z.

    Files are so whose headers name the axes wrongly (the published MR-ultrasound pairs have the rectum at -x). It is 0
    because a network learns one frame from a fraction of the pairs that four take; registration can correct headers.
    """

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class DeformationSettings:
    """How the structure differs between the scans."""

    enabled: bool = True
    """False: not at all."""
    wave_mm: Range = (0.8, 4.0)
    """Root mean square of a smooth random displacement."""
    wavelength_mm: Range = (55.0, 120.0)
    """Its wavelengths."""
    push_mm: Range = (0.0, 4.0)
    """Displacement by a push from behind."""
    stretch_x: Range = (-0.06, 0.2)
    """Fraction by which the structure is longer in the moving scan, along x."""
    stretch_y: Range = (-0.16, 0.1)
    """The same along y."""
    stretch_z: Range = (-0.1, 0.18)
    """The same along z."""
    wrap_mm: Range = (8.0, 26.0)
    """How far its back wraps about the probe: 0.3 of it inwards in the middle, outwards at the sides.

    At most 1.1 half depths.
    """

    def __post_init__(self) -> None:
        check_ranges(self, -0.3)
        # Beyond these the deformation would fold space.
        if self.wavelength_mm[0] < 40.0:
            raise SettingError("wavelength_mm", f"must be 40 or more, got {self.wavelength_mm}")
        if self.wave_mm[1] > self.wavelength_mm[0] / 12:
            raise SettingError("wave_mm", f"must stay below a twelfth of 'wavelength_mm', got {self.wave_mm}")
        if self.push_mm[1] > 10.0:
            raise SettingError("push_mm", f"must be 10 or less, got {self.push_mm}")


@dataclass(frozen=True)
class MRSettings:
    """The MR scan."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"random_contrast_share": "random_contrast_fraction"}

    random_contrast_fraction: float = 0.02
    """Fraction of the scans with a contrast that no sequence has (domain randomisation)."""
    contrast_jitter: Range = (0.02, 0.07)
    """Standard deviation of each tissue's intensity."""
    zones: Range = (0.15, 1.0)
    """Factor on the contrast inside the prostate, which published scans hardly show at 2.5 mm."""
    texture: Range = (0.01, 0.08)
    """Strength of a soft random texture."""
    bias: Range = (0.0, 0.3)
    """Strength of the coil's shading."""
    noise: Range = (0.0, 0.008)
    """Standard deviation of the noise."""
    slice_mm: Range = (1.5, 4.0)
    """Thickness of the slices."""
    blur_mm: Range = (2.0, 4.5)
    """Standard deviation of the blur."""
    crop: bool = True
    """Whether the field of view ends within the volume."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class UltrasoundSettings:
    """The ultrasound scan."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {
        "end_fire_share": "end_fire_fraction",
        "random_contrast_share": "random_contrast_fraction",
        "gap_share": "gap_fraction",
        "beside_near": "brighter_near",
        "beside_far": "darker_far",
    }

    end_fire_fraction: float = 0.02
    """Fraction of the probes that sweep a fan about their tip; the others step along."""
    random_contrast_fraction: float = 0.03
    """Fraction of the scans with an arbitrary contrast."""
    half_angle_deg: Range = (40.0, 66.0)
    """Half the angle of the sector."""
    box_width_mm: Range = (88.0, 102.0)
    """Width of the imaged box."""
    box_depth_mm: Range = (69.0, 77.0)
    """Its depth."""
    box_length_mm: Range = (65.0, 71.0)
    """Its length."""
    speckle: Range = (0.0, 0.25)
    """Strength of the speckle."""
    texture: Range = (0.03, 0.2)
    """Strength of a soft random texture."""
    reflection: Range = (0.0, 0.5)
    """Brightness of boundaries across the beams."""
    attenuation_per_mm: Range = (0.0, 0.01)
    """Attenuation along the beams."""
    zones: Range = (0.5, 1.0)
    """Factor on the contrast inside the prostate."""
    lateral_shading: Range = (0.2, 1.4)
    """Darkening towards the sector's sides."""
    blur_mm: Range = (2.0, 5.0)
    """Standard deviation of the blur."""
    edge_mm: Range = (0.5, 4.0)
    """Width over which the sector's and the box's edges fade."""
    gap_mm: Range = (10.0, 22.5)
    """Distance of the sector's near face from the middle of the prostate's back."""
    side_mm: Range = (-3.6, 4.8)
    """How far the probe's middle lies to the left of the prostate's."""
    along_mm: Range = (-7.7, 9.3)
    """How far it lies above it."""
    focus: Range = (0.3, 1.7)
    """Relative brightness of a band behind the prostate's back."""
    sweep: Range = (0.0, 0.3)
    """Size of smooth changes of gain along the sweep."""
    near_fade: Range = (0.55, 1.05)
    """Part of the gap over which the echoes rise from 0."""
    brighter_near: Range = (0.0, 0.0)
    """Relative increase of brightness above and below the prostate at the depth of its back.

    Off by default, as is `darker_far`: docs/lab/experiments.md says why.
    """
    darker_far: Range = (0.0, 0.0)
    """Relative decrease of brightness there at the depth of its front."""
    gap_fraction: float = 0.2
    """Fraction of the scans with dark planes."""
    shadows: bool = True
    """Shadows of bone, calcifications and poor contact."""
    sector: bool = True
    """Whether the image ends at the sector."""
    crop: bool = True
    """Whether the image ends at the imaged box."""
    quantised: bool = True
    """Whether intensities are multiples of 1/255."""

    def __post_init__(self) -> None:
        check_ranges(self, -30.0)
        if not 10.0 <= self.half_angle_deg[0] <= self.half_angle_deg[1] <= 85.0:
            raise SettingError("half_angle_deg", f"must lie in 10..85 degrees, got {self.half_angle_deg}")
        if self.edge_mm[0] <= 0:
            raise SettingError("edge_mm", f"must be above 0, got {self.edge_mm}")


@dataclass(frozen=True)
class SimulationSettings:
    """Everything that a simulated pair is drawn from. The defaults are wide, so that real pairs lie inside them."""

    anatomy: AnatomySettings = field(default_factory=AnatomySettings)
    """The pelvis."""
    pose: PoseSettings = field(default_factory=PoseSettings)
    """Where the prostate lies in the two scans."""
    deformation: DeformationSettings = field(default_factory=DeformationSettings)
    """How it differs between them."""
    mr: MRSettings = field(default_factory=MRSettings)
    """The MR scan."""
    ultrasound: UltrasoundSettings = field(default_factory=UltrasoundSettings)
    """The ultrasound scan."""


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
        if self.radius_mm[0] < 5:
            raise SettingError("radius_mm", f"must be 5 or more, got {self.radius_mm}")
        if self.edge_mm[0] <= 0 or self.density[1] > 1:
            name, bounds = ("density", "lie in 0..1") if self.density[1] > 1 else ("edge_mm", "be over 0")
            raise SettingError(name, f"must {bounds}, got {getattr(self, name)}")
        if self.pose.rotated_fraction:
            got = self.pose.rotated_fraction
            raise SettingError("pose.rotated_fraction", f"must be 0: all axis orientations occur anyway, got {got}")
