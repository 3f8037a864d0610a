"""What is simulated, and how widely: every part of the anatomy and of the physics has its range and its switch."""

from dataclasses import dataclass, field, fields
from typing import TypeAlias

from crossalign.errors import InputError

# int is spelt out because the tests check types at run time, where 0 is not a float.
Range: TypeAlias = tuple[float | int, float | int]


def _check_ranges(settings: object, lowest: float = 0.0) -> None:
    for item in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        where = f"{type(settings).__name__}.{item.name}"
        if isinstance(value, tuple) and not (len(value) == 2 and lowest <= value[0] <= value[1] < 1e6):
            raise InputError(f"{where} must be a range (low, high) with {lowest:g} <= low <= high, got {value}")
        if item.name.endswith("_share") and not 0.0 <= value <= 1.0:
            raise InputError(f"{where} is a share of the pairs and must lie in 0..1, got {value}")


@dataclass(frozen=True)
class AnatomySettings:
    """The pelvis. Volumes lean to the middle of their range, as those of published pairs do (27 to 168 ml, median 80).

    The gland's cross-sections shrink by `taper` a half height towards the apex and, as a `barrel`, towards both ends;
    `hollow` is how deep its back is pushed in and `lean` how far its base leans back, as shares of the half depth.
    `asymmetry_mm` is the rms displacement of waves that all the pelvis shares.
    """

    volume_ml: Range = (15.0, 150.0)
    asymmetry_mm: Range = (0.3, 2.0)
    taper_x: Range = (0.0, 0.42)
    taper_y: Range = (-0.02, 0.32)
    barrel: Range = (0.4, 0.75)
    hollow: Range = (0.0, 0.35)
    lean: Range = (-0.13, 0.27)
    nodules: bool = True
    lesions: bool = True
    cysts: bool = True
    calcifications: bool = True
    surroundings: bool = True

    def __post_init__(self) -> None:
        _check_ranges(self, -0.5)
        if not 5.0 <= self.volume_ml[0] <= self.volume_ml[1] <= 300.0:
            raise InputError(f"AnatomySettings.volume_ml must lie in 5..300 ml, got {self.volume_ml}")


@dataclass(frozen=True)
class PoseSettings:
    """Where the gland lies.

    `turned_share` of the pairs are turned by 90, 180 or 270 degrees about z, both scans alike, as files are whose
    headers name the axes wrongly (the published MR-ultrasound pairs have the rectum at -x). It is 0 because a network
    learns one frame in a fraction of the pairs that four take; registration can turn the headers.
    """

    rotation_deg: Range = (0.0, 22.0)
    translation_mm: Range = (0.0, 15.0)
    fixed_offset_mm: Range = (0.0, 10.0)
    turned_share: float = 0.0

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True)
class DeformationSettings:
    """How the gland differs between the scans: a push from behind, smooth waves, and the probe's grip.

    The gland is longer in the ultrasound scan by the share `stretch` along each axis (it may be negative), and its back
    wraps about the probe: pushed in by 0.3 `wrap_mm` (at most 1.1 half depths) in the middle, pulled out at the sides.
    """

    enabled: bool = True
    wave_mm: Range = (0.8, 4.0)
    wavelength_mm: Range = (55.0, 120.0)
    push_mm: Range = (0.0, 4.0)
    stretch_x: Range = (-0.06, 0.2)
    stretch_y: Range = (-0.16, 0.1)
    stretch_z: Range = (-0.1, 0.18)
    wrap_mm: Range = (8.0, 26.0)

    def __post_init__(self) -> None:
        _check_ranges(self, -0.3)
        if self.wavelength_mm[0] < 40.0 or self.wave_mm[1] > self.wavelength_mm[0] / 12 or self.push_mm[1] > 10.0:
            raise InputError(
                "DeformationSettings would fold space: keep wavelength_mm at 40 or more, wave_mm below a twelfth of it "
                f"and push_mm at 10 or less, got {self.wavelength_mm}, {self.wave_mm}, {self.push_mm}"
            )


@dataclass(frozen=True)
class MRSettings:
    """The MR scan. `random_contrast_share` of the scans get a contrast that no sequence has (domain randomisation).

    `zones` scales the contrast inside the gland, which published scans hardly show at 2.5 mm.
    """

    random_contrast_share: float = 0.02
    contrast_jitter: Range = (0.02, 0.07)
    zones: Range = (0.15, 1.0)
    texture: Range = (0.01, 0.08)
    bias: Range = (0.0, 0.3)
    noise: Range = (0.0, 0.008)
    slice_mm: Range = (1.5, 4.0)
    blur_mm: Range = (2.0, 4.5)
    crop: bool = True

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True)
class UltrasoundSettings:
    """The ultrasound scan. `end_fire_share` of the probes sweep a fan about their tip, all others step along.

    `gap_mm` lies between the sector's near face and the middle of the gland's back. The probe's middle lies `side_mm`
    to the left and `along_mm` above the gland's. Over `near_fade` of the gap the echoes rise from 0; a band behind the
    gland's back is `focus` brighter. Above and below the gland it is brighter by the share `beside_near` at the depth
    of its back, and darker by `beside_far` at that of its front (off by default: docs/experiments.md says why). What
    was imaged is a box (`box_..._mm`); `sweep` is the size of smooth changes of gain along it. `zones` scales the
    contrast inside the gland.
    """

    end_fire_share: float = 0.02
    random_contrast_share: float = 0.03
    half_angle_deg: Range = (40.0, 66.0)
    box_width_mm: Range = (88.0, 102.0)
    box_depth_mm: Range = (69.0, 77.0)
    box_length_mm: Range = (65.0, 71.0)
    speckle: Range = (0.0, 0.25)
    texture: Range = (0.03, 0.2)
    reflection: Range = (0.0, 0.5)
    attenuation_per_mm: Range = (0.0, 0.01)
    zones: Range = (0.5, 1.0)
    lateral_shading: Range = (0.2, 1.4)
    blur_mm: Range = (2.0, 5.0)
    edge_mm: Range = (0.5, 4.0)
    gap_mm: Range = (10.0, 22.5)
    side_mm: Range = (-3.6, 4.8)
    along_mm: Range = (-7.7, 9.3)
    focus: Range = (0.3, 1.7)
    sweep: Range = (0.0, 0.3)
    near_fade: Range = (0.55, 1.05)
    beside_near: Range = (0.0, 0.0)
    beside_far: Range = (0.0, 0.0)
    gap_share: float = 0.2
    shadows: bool = True
    sector: bool = True
    crop: bool = True
    quantised: bool = True

    def __post_init__(self) -> None:
        _check_ranges(self, -30.0)
        if not 10.0 <= self.half_angle_deg[0] <= self.half_angle_deg[1] <= 85.0:
            raise InputError(f"UltrasoundSettings.half_angle_deg must lie in 10..85 degrees, got {self.half_angle_deg}")
        if self.edge_mm[0] <= 0:
            raise InputError(f"UltrasoundSettings.edge_mm must be above 0, got {self.edge_mm}")


@dataclass(frozen=True)
class SimulationSettings:
    """Everything that a simulated pair is drawn from. The defaults are wide, so that real pairs lie inside them.

    Set a range to (0, 0), a share to 0 or a switch to False to leave that part out; the other parts keep their draws.
    """

    anatomy: AnatomySettings = field(default_factory=AnatomySettings)
    pose: PoseSettings = field(default_factory=PoseSettings)
    deformation: DeformationSettings = field(default_factory=DeformationSettings)
    mr: MRSettings = field(default_factory=MRSettings)
    ultrasound: UltrasoundSettings = field(default_factory=UltrasoundSettings)
