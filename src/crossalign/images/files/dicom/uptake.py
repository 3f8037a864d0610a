"""PET: from the header's dose, times and weight to the standardised uptake value by body weight (SUVbw, g/ml).

SUVbw = activity (Bq/ml) * weight (g) / dose (Bq), the dose at the time to which the activity is corrected for decay: of
its administration (Decay Correction ADMIN), or of the scan's begin (START). After QIBA's vendor-neutral calculation.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DAY_S = 86_400.0
LONGEST_S = 12 * 3600.0  # from injection to scan, where only times of day are given
TIME = re.compile(r"([0-9]{2})([0-9]{2})?([0-9]{2}(?:\.[0-9]{1,6})?)?")
GRAMS = 1000.0
LIKELY_KG = (0.2, 500.0)
LIKELY_BQ = (1e5, 1e11)  # below it, some write the dose in MBq
LIKELY_HALF_LIFE_S = (60.0, 1e7)
PHILIPS = "Philips PET Private Group"


@dataclass(frozen=True)
class Uptake:
    """What multiplies the values of a PET slice: `factor` makes SUVbw of them; None where it cannot be known.

    `reason` says why, or what the values were; `unit` is what the header calls their unit.
    """

    factor: float | None
    unit: str
    reason: str


def uptake_of(dataset: Dataset) -> Uptake:
    """Find the factor from the values of a PET image (after its rescale slope) to SUVbw."""
    unit = str(dataset.get("Units", "") or "").upper()
    kind = str(dataset.get("SUVType", "") or "BW").upper()
    if unit == "GML" and kind == "BW":
        return Uptake(1.0, unit, "already SUVbw")
    if unit == "GML":
        return Uptake(None, unit, f"they are SUV of another type ({kind[:8]})")
    if unit == "CNTS":
        return _of_counts(dataset)
    if unit != "BQML":
        return Uptake(None, unit or "no unit", "expected BQML, GML or CNTS")
    return _of_activity(dataset, unit, 1.0)


def _of_counts(dataset: Dataset) -> Uptake:
    """Philips keeps a factor to SUV, or one to Bq/ml, in private elements."""
    to_suv, to_activity = (_positive(_private(dataset, offset)) for offset in (0x00, 0x09))
    if to_suv is not None:
        return Uptake(to_suv, "CNTS", "counts, by the scanner's own factor")
    if to_activity is not None:
        return _of_activity(dataset, "CNTS", to_activity)
    return Uptake(None, "CNTS", "counts without the scanner's factor (7053,1000) or (7053,1009)")


def _of_activity(dataset: Dataset, unit: str, scale: float) -> Uptake:
    weight = _positive(dataset.get("PatientWeight"))
    given = next(iter(dataset.get("RadiopharmaceuticalInformationSequence") or []), None)
    dose = None if given is None else _positive(given.get("RadionuclideTotalDose"))
    missing = [word for word, value in (("the weight", weight), ("the injected dose", dose)) if value is None]
    if missing or weight is None or dose is None or given is None:
        return Uptake(None, unit, f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not in the header")
    for word, value, (low, high) in (("weight", weight, LIKELY_KG), ("injected dose", dose, LIKELY_BQ)):
        if not low <= value <= high:
            expected = f"{low:g} to {high:g} {'kg' if word == 'weight' else 'Bq'}"
            return Uptake(None, unit, f"the {word} is {value:g}, expected {expected}")
    fraction, reason = _remaining(dataset, given)
    if fraction is None:
        return Uptake(None, unit, reason)
    return Uptake(scale * weight * GRAMS / (dose * fraction), unit, reason)


def _remaining(dataset: Dataset, given: Dataset) -> tuple[float | None, str]:
    """Return which part of the dose is left at the time that the values are corrected to, and in words to which."""
    corrected = [str(word).upper() for word in _words(dataset.get("CorrectedImage"))]
    if corrected and "ATTN" not in corrected:
        return None, "they are not corrected for attenuation"
    correction = str(dataset.get("DecayCorrection", "") or "").upper()
    if correction == "ADMIN":
        return 1.0, "decay-corrected to the injection"
    if correction != "START":
        return None, f"the decay correction is {correction[:8] or 'not given'}, expected START or ADMIN"
    half_life = _positive(given.get("RadionuclideHalfLife"))
    low, high = LIKELY_HALF_LIFE_S
    if half_life is None or not low <= half_life <= high:
        return None, "the half-life of the radionuclide is not in the header"
    waited = _waited_s(dataset, given)
    if waited is None:
        return None, "the times of injection and scan are not in the header, or make no sense together"
    return math.pow(2, -waited / half_life), "decay-corrected to the begin of the scan"


def _waited_s(dataset: Dataset, given: Dataset) -> float | None:
    """Return the seconds from injection to the begin of the scan; None where they cannot be known.

    The begin is the series' time, unless that is later than the acquisition's, as of a series that was made afterwards:
    then it is the acquisition's time, less what the frame's reference time says of later bed positions.
    """
    injected = str(given.get("RadiopharmaceuticalStartDateTime", "") or "")
    dated, plain = _seconds(injected[8:]), _seconds(str(given.get("RadiopharmaceuticalStartTime", "") or ""))
    began = _begin(dataset)
    if began is None:
        return None
    day, seconds = began
    if dated is not None and day:
        waited = seconds - dated + DAY_S * _days_between(injected[:8], day)
        if 0 <= waited <= LONGEST_S:
            return waited  # otherwise dates were shifted on the way, one without the other: times of day remain
    start = dated if plain is None else plain
    if start is None:
        return None
    waited = (seconds - start) % DAY_S  # over midnight
    return waited if waited <= LONGEST_S else None


def _begin(dataset: Dataset) -> tuple[str, float] | None:
    series, acquired = (_moment(dataset, word) for word in ("Series", "Acquisition"))
    if series is None or acquired is None:
        return series or acquired
    if series <= acquired:
        return series
    reference, frame = _number(dataset.get("FrameReferenceTime")), _number(dataset.get("ActualFrameDuration"))
    if reference is None or frame is None or reference <= frame / 2:
        return acquired
    return acquired[0], acquired[1] - (reference - frame / 2) / 1000  # of later bed positions: ms


def _moment(dataset: Dataset, word: str) -> tuple[str, float] | None:
    seconds = _seconds(str(dataset.get(f"{word}Time", "") or ""))
    return None if seconds is None else (str(dataset.get(f"{word}Date", "") or ""), seconds)


def _seconds(text: str) -> float | None:
    match = TIME.match(text.strip())
    if match is None:
        return None
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 61 else None


def _days_between(first: str, second: str) -> float:
    from datetime import date

    try:
        days = [date(int(text[:4]), int(text[4:6]), int(text[6:8])) for text in (first, second)]
    except ValueError:
        return math.inf
    return float((days[1] - days[0]).days)


def _private(dataset: Dataset, offset: int) -> Any:
    try:
        return dataset.private_block(0x7053, PHILIPS)[offset].value
    except KeyError:
        return None


def _words(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _number(value: Any) -> float | None:
    number = None if value is None or value == "" else float(value)
    return number if number is not None and math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None
