"""How a network cascade is run, as the options of commands spell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from crossalign.cli.options import split_list
from crossalign.errors import InputError
from crossalign.input import excerpt, number_value, whole_value
from crossalign.models.cascade_settings import HEADER_TURNS, CascadeSettings, GridSearch
from crossalign.registration import Cascade, Method

NUMBERS: Mapping[str, Callable[[str, str], int | float]] = {
    **dict.fromkeys(("starts", "seed", "max_passes"), whole_value),
    **dict.fromkeys(("spread_mm", "tolerance_mm", "later_share", "later_share_z"), number_value),
}
MOST_STARTS = 10_000  # and passes
SEARCH, TURN, AUTO, TOGETHER = "search", "header_turn", "auto", "together"


def parse_run(text: str, settings: CascadeSettings) -> CascadeSettings:
    """Change settings as `starts=8,max_passes=5,search=on` says; raises InputError."""
    for part in split_list(text, "--run") if text else ():
        name, _, value = (word.strip() for word in part.partition("="))
        if name == SEARCH and value in ("on", "off"):
            settings = replace(settings, search=(settings.search or GridSearch()) if value == "on" else None)
            continue
        if name == TOGETHER and value in ("on", "off"):
            settings = replace(settings, together=value == "on")
            continue
        if name == TURN:
            settings = replace(settings, header_turns_deg=_turns(value))
            continue
        settings = replace(settings, **{name: _number(part, name, value)})  # type: ignore[arg-type]
    return settings


def _number(part: str, name: str, value: str) -> int | float:
    known = ", ".join(f"{name}=NUMBER" for name in NUMBERS)
    expected = f"expected {known}, search=on (or off), together=on (or off) or {TURN}=90"
    if name not in NUMBERS:
        raise InputError(f"cannot read '{excerpt(part)}': {expected}")
    number = NUMBERS[name](value, f"cannot read '{excerpt(part)}'")
    if name in ("starts", "max_passes") and number > MOST_STARTS:
        raise InputError(f"'{name}' is at most {MOST_STARTS}, got {number}")
    return number


def _turns(value: str) -> tuple[int, ...]:
    choices = {AUTO: HEADER_TURNS, **{str(turn): (turn,) for turn in HEADER_TURNS}}
    if value not in choices:
        raise InputError(f"{TURN} is one of {', '.join(choices)}, got '{value}'")
    return choices[value]


def with_run(method: Method, text: str | None) -> Method:
    """Run a cascade otherwise than its weights say; raises InputError for a method that is none."""
    if not text:
        return method
    if not isinstance(method, Cascade):
        raise InputError(f"'{method.name}' is no network: {text} says how networks are run")
    return replace(method, run=parse_run(text, method.run))
