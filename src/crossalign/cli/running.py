"""How a network cascade is run, as the options of commands spell it."""

from __future__ import annotations

from dataclasses import replace

from crossalign.errors import InputError
from crossalign.models.cascade_settings import HEADER_TURNS, CascadeSettings, GridSearch
from crossalign.registration import Cascade, Method

NUMBERS = {"starts": int, "spread_mm": float, "seed": int, "max_passes": int, "tolerance_mm": float}
NUMBERS |= {"later_share": float, "later_share_z": float}
SEARCH, TURN, AUTO, TOGETHER = "search", "header_turn", "auto", "together"


def parse_run(text: str, settings: CascadeSettings) -> CascadeSettings:
    """Change settings as `starts=8,max_passes=5,search=on` says; raises InputError."""
    for part in filter(None, (part.strip() for part in text.split(","))):
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
        try:
            settings = replace(settings, **{name: NUMBERS[name](value)})
        except (KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            names = ", ".join(f"{name}=NUMBER" for name in NUMBERS)
            raise InputError(
                f"cannot read '{part}': expected {names}, search=on (or off), together=on (or off) or {TURN}=90"
            ) from error
    return settings


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
