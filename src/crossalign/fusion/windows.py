"""Windows: which values of an image become 0 and 1, as readers of each modality choose them, or as given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from crossalign.errors import ImageError, InputError
from crossalign.fusion.intensity_statistics import IntensityStatistics, intensity_statistics
from crossalign.fusion.scaling import GIVEN, Scaling
from crossalign.fusion.window_settings import WindowSettings
from crossalign.images import Image

Modality: TypeAlias = Literal["mr", "ct", "pet", "spect", "other"]
Position: TypeAlias = Literal["a", "b"]

SUV, HU = "SUV", "HU"
PET_TOP_SUV = 6.0
PET_PERCENTILE = 99.9
BODY_PERCENTILE = 99.5
CT_WINDOW_HU = (-160.0, 240.0)  # soft tissue: 400 wide about 40
DICOM_MODALITIES: dict[str, Modality] = {"MR": "mr", "CT": "ct", "PT": "pet", "NM": "spect"}
SUV_UNITS = ("suv", "suvbw", "suvlbm", "suvbsa", "sul", "g/ml")  # not SUVR, a ratio to a region
BY_POSITION: dict[Position, Modality] = {"a": "mr", "b": "pet"}
BY_HEADER, BY_UNIT, BY_ORDER, BY_VALUES = "DICOM header", "unit", "order", "values"
AIR_HU = (-1100.0, -900.0)
AIR_HU_FRACTION = 0.01
# The 99.9th percentile of a PET in SUV; counts and Bq/ml are larger, scaled images smaller.
SUV_RANGE = (1.5, 50.0)


@dataclass(frozen=True)
class Window:
    """The values that become 0 (`low`) and 1 (`high`), in the unit of the image; values beyond saturate."""

    low: float
    high: float
    unit: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f"a window is LOW,HIGH with LOW below HIGH, got {self.low:g},{self.high:g}")


def scaling_of(
    settings: WindowSettings, image: Image, position: Position, unit: str = ""
) -> tuple[Scaling, tuple[str, ...]]:
    """Return the scaling of an input, and notes about what was guessed; raises ImageError for a flat image."""
    modality_a, modality_b = settings.modality_a, settings.modality_b
    named, values = (modality_a, settings.window_a) if position == "a" else (modality_b, settings.window_b)
    statistics = intensity_statistics(image)
    found = _recognised(image, statistics, position, None if named == "auto" else named, unit)
    if values is not None:
        return _counted(statistics, Window(*values, found.unit), found.modality, GIVEN), ()
    window = _window(image, statistics, found.modality, found.unit)
    return _counted(statistics, window, found.modality, found.source), found.notes


@dataclass(frozen=True)
class Recognition:
    """What an image is, the unit of its values, how that is known, and notes about guesses."""

    modality: Modality
    unit: str
    source: str
    notes: tuple[str, ...] = ()


def recognise(image: Image, position: Position, given: Modality | None = None, unit: str = "") -> Recognition:
    """Say what an image is: as given, as its DICOM header or its unit says, or by its position: a an MR, b a PET.

    `unit` is the given unit, and otherwise the image's own. An image without any of them whose values begin with air
    at -1000 is taken for a CT, and a PET without a unit whose 99.9th percentile is 1.5 to 50 for one in SUV; notes say
    both.
    """
    return _recognised(image, intensity_statistics(image), position, given, unit)


def default_window(image: Image, modality: Modality, unit: str = "") -> Window:
    """Choose the window of an image as readers of its modality do; raises ImageError where nothing varies.

    pet, spect: 0 (no uptake) to the 99.9th percentile of the volume, of a PET in SUV to 6 or that, whichever is higher.
    Another value than 0 counts as no uptake only where the background clearly has it and the unit is not SUV: a
    constant that was added, or a z-scored image. ct: -160 to 240 HU. mr, other: the background to the 99.5th percentile
    of the body, which is what is brighter than a tenth of the way to the 99.5th percentile of the foreground.
    `unit` is by default the image's own.
    """
    return _window(image, intensity_statistics(image), modality, unit or image.unit)


def find_scaling(image: Image, modality: Modality, window: Window | None = None, unit: str = "") -> Scaling:
    """Return how an image becomes [0, 1]: by a window, or by its modality's default, with what lies beyond counted."""
    statistics = intensity_statistics(image)
    if window is not None:
        return _counted(statistics, window, modality, GIVEN)
    return _counted(statistics, _window(image, statistics, modality, unit or image.unit), modality, GIVEN)


def apply_window(image: Image, window: Window, modality: Modality = "other") -> Image:
    """Return the image in [0, 1]: `low` and below are 0, `high` and above 1, padding is 0."""
    return Image(find_scaling(image, modality, window).apply(image.voxels), image.grid, image.name)


def _recognised(
    image: Image, statistics: IntensityStatistics, position: Position, given: Modality | None, unit: str
) -> Recognition:
    unit = unit or image.unit
    by_header, by_unit = DICOM_MODALITIES.get(image.modality), _of_unit(unit)
    if given is not None:
        modality, source = given, GIVEN
    elif by_header is not None:
        modality, source = by_header, BY_HEADER
    elif by_unit is not None:
        modality, source = by_unit, BY_UNIT
    elif _shows_air_in_hu(statistics):
        note = f"{image.name} is taken for a CT, since its air is at -1000: --modality-{position} says otherwise"
        return Recognition("ct", HU, BY_VALUES, (note,))
    else:
        modality, source = BY_POSITION[position], BY_ORDER
    if modality == "pet" and not unit and _looks_like_suv(image, statistics):
        note = (
            f"the values of {image.name} are taken for SUV, by their range: --unit says otherwise "
            f"(--window-{position} LOW,HIGH chooses the window)"
        )
        return Recognition(modality, SUV, source, (note,))
    return Recognition(modality, HU if modality == "ct" else unit, source)


def _of_unit(unit: str) -> Modality | None:
    """Return the modality whose values have this unit."""
    return "pet" if _is_suv(unit) else "ct" if unit.strip().upper() == HU else None


def _is_suv(unit: str) -> bool:
    return unit.strip().lower() in SUV_UNITS


def _window(image: Image, statistics: IntensityStatistics, modality: Modality, unit: str) -> Window:
    if modality == "ct":
        return Window(*CT_WINDOW_HU, HU)
    if modality in ("pet", "spect"):
        low = 0.0 if _is_suv(unit) else statistics.no_uptake()
        high = _volume_percentile(image, statistics)
        high = max(PET_TOP_SUV, high) if _is_suv(unit) and modality == "pet" else high
    else:
        low = statistics.background()
        high = statistics.body_percentile(BODY_PERCENTILE)
    high = high if high > low else float(statistics.values.max())
    if not high > low:
        raise ImageError(f"{image.name}: every voxel but a few is {low:g}: an image without contrast cannot be fused")
    return Window(low, high, unit)


def _counted(statistics: IntensityStatistics, window: Window, modality: Modality, source: str) -> Scaling:
    """Make the scaling of a window, with the voxels beyond it counted; padding does not count."""
    below = int(np.count_nonzero(statistics.values < window.low))
    above = int(np.count_nonzero(statistics.values > window.high))
    return Scaling(
        low=window.low,
        high=window.high,
        unit=window.unit,
        clipped_fraction=(below + above) / statistics.voxels,
        padding=statistics.padding,
        saturated=above,
        saturated_fraction=above / statistics.voxels,
        modality=modality,
        source=source,
    )


def _volume_percentile(image: Image, statistics: IntensityStatistics) -> float:
    """Return the 99.9th percentile of all voxels, padding of another value than 0 left out."""
    whole = statistics.padding in (None, 0.0)
    return float(np.percentile(image.voxels.cpu().numpy() if whole else statistics.values, PET_PERCENTILE))


def _shows_air_in_hu(statistics: IntensityStatistics) -> bool:
    """Say whether an image has the noisy air of a CT: more than 1 % of the voxels that are not padding."""
    low, high = AIR_HU
    air = int(np.count_nonzero((statistics.values >= low) & (statistics.values <= high)))
    return air >= AIR_HU_FRACTION * statistics.voxels


def _looks_like_suv(image: Image, statistics: IntensityStatistics) -> bool:
    least, most = SUV_RANGE
    return statistics.no_uptake() == 0 and least <= _volume_percentile(image, statistics) <= most
