"""How a network cascade is run, as the options of commands spell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from crossalign.cli.options import split_list
from crossalign.errors import InputError
from crossalign.input import excerpt, number_value, whole_value
from crossalign.models.run_settings import MOST_INITIALISATIONS, ORIENTATIONS_DEG, OrientationCorrection, RunSettings
from crossalign.registration import Method, NetworkRegistration

NUMBERS: Mapping[str, Callable[[str, str], int | float]] = {
    **dict.fromkeys(("initialisations", "seed", "max_passes"), whole_value),
    **dict.fromkeys(("perturbation_mm", "tolerance_mm", "refinement_step", "refinement_step_z"), number_value),
}
SEARCH, TURN, AUTO = "search", "orientation_correction", "auto"


def parse_run(text: str, settings: RunSettings) -> RunSettings:
    """Change settings as `initialisations=8,max_passes=5,search=on` says; raises InputError."""
    for part in split_list(text, "--run") if text else ():
        name, _, value = (word.strip() for word in part.partition("="))
        if name == SEARCH and value in ("on", "off"):
            settings = replace(settings, search=value == "on")
            continue
        if name == TURN:
            settings = replace(settings, orientation_correction=_orientation(value))
            continue
        settings = replace(settings, **{name: _number(part, name, value)})  # type: ignore[arg-type]
    return settings


def _number(part: str, name: str, value: str) -> int | float:
    known = ", ".join(f"{name}=NUMBER" for name in NUMBERS)
    expected = f"expected {known}, search=on (or off) or {TURN}=90"
    if name not in NUMBERS:
        raise InputError(f"cannot read '{excerpt(part)}': {expected}")
    number = NUMBERS[name](value, f"cannot read '{excerpt(part)}'")
    if name in ("initialisations", "max_passes") and number > MOST_INITIALISATIONS:
        raise InputError(f"'{name}' is at most {MOST_INITIALISATIONS}, got {number}")
    return number


def _orientation(value: str) -> OrientationCorrection:
    choices: dict[str, OrientationCorrection] = {AUTO: "auto"}
    choices |= {str(degrees): degrees for degrees in ORIENTATIONS_DEG}  # type: ignore[misc]
    if value not in choices:
        raise InputError(f"{TURN} is one of {', '.join(choices)}, got '{value}'")
    return choices[value]


def with_run(method: Method, text: str | None) -> Method:
    """Run a model otherwise than its file says; raises InputError for a method that is none."""
    if not text:
        return method
    if not isinstance(method, NetworkRegistration):
        raise InputError(f"'{method.name}' is no network: {text} says how networks are run")
    return method.with_run(parse_run(text, method.model.run))
