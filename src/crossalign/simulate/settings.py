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
    """The pelvis. Volumes lean to the large end, as those of published pairs do (27 to 168 ml, median about 80)."""

    volume_ml: Range = (15.0, 150.0)
    asymmetry_mm: Range = (0.3, 3.5)
    nodules: bool = True
    lesions: bool = True
    cysts: bool = True
    calcifications: bool = True
    surroundings: bool = True

    def __post_init__(self) -> None:
        _check_ranges(self)
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
    """How the gland differs between the scans: probe pressure from behind, squeeze from front to back, smooth waves.

    `swelling` is the share by which the gland is longer in the ultrasound scan along each axis (it may be negative).
    In `probe_share` of the pairs a round probe of radius `probe_mm`, its axis `probe_behind_mm` behind the undeformed
    gland, has pushed the tissue aside: the gland lies about it as a crescent. That looks more like life, and networks
    trained on it did worse on real pairs (docs/experiments.md), so it is 0.
    """

    enabled: bool = True
    wave_mm: Range = (0.8, 4.0)
    wavelength_mm: Range = (55.0, 120.0)
    push_mm: Range = (0.0, 7.0)
    squeeze: Range = (0.0, 0.14)
    swelling: Range = (-0.03, 0.08)
    probe_mm: Range = (7.0, 11.0)
    probe_behind_mm: Range = (12.0, 22.0)
    probe_share: float = 0.0

    def __post_init__(self) -> None:
        _check_ranges(self, -0.2)
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

    random_contrast_share: float = 0.05
    contrast_jitter: Range = (0.03, 0.12)
    zones: Range = (0.15, 1.0)
    texture: Range = (0.02, 0.25)
    bias: Range = (0.0, 0.6)
    noise: Range = (0.002, 0.035)
    slice_mm: Range = (1.5, 4.0)
    blur_mm: Range = (0.8, 4.5)
    crop: bool = True

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True)
class UltrasoundSettings:
    """The ultrasound scan: of the probes that do not press into the gland `end_fire_share` sweep a fan about their tip.

    All others step along.

    `gap_mm` lies between the sector's near face and the gland; over `near_fade_mm` the echoes rise from 0. `focus` is
    how much brighter a band of random depth is; `zones` scales the contrast inside the gland.
    """

    end_fire_share: float = 0.05
    random_contrast_share: float = 0.1
    half_angle_deg: Range = (38.0, 72.0)
    speckle: Range = (0.0, 0.5)
    texture: Range = (0.03, 0.3)
    reflection: Range = (0.0, 0.5)
    attenuation_per_mm: Range = (0.01, 0.035)
    zones: Range = (0.3, 1.0)
    lateral_shading: Range = (0.0, 0.9)
    blur_mm: Range = (0.8, 4.5)
    edge_mm: Range = (0.5, 12.0)
    gap_mm: Range = (2.0, 22.0)
    focus: Range = (0.0, 2.0)
    near_fade_mm: Range = (0.0, 18.0)
    gap_share: float = 0.2
    shadows: bool = True
    sector: bool = True
    crop: bool = True
    quantised: bool = True

    def __post_init__(self) -> None:
        _check_ranges(self)
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
