"""Settings dataclasses from JSON: every entry is checked, and an error names the one that is wrong."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from crossalign.errors import InputError
from crossalign.input import excerpt

Settings = TypeVar("Settings")
WHOLE_LIMIT = 2**63
WORDS = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


def settings_of(kind: type[Settings], values: object, where: str = "") -> Settings:
    """Make a settings dataclass of what JSON holds; what is not named takes its default.

    A dataclass's `OLD_NAMES` map what earlier versions called a setting to its name. Raises InputError that names the
    entry: one that `kind` does not have, one that is missing, or one of another type. What the dataclass itself refuses
    is an InputError too.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where or 'the settings'}: expected entries by name, got {excerpt(values)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    renamed = getattr(kind, "OLD_NAMES", {})
    named = {renamed.get(name, str(name)): value for name, value in values.items()}
    for name in named:
        if name not in fields:
            raise InputError(f"'{excerpt(where + name)}' is no setting: there are {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    given = {name: _value(hints[name], value, where + name) for name, value in named.items()}
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"'{where}{name}' is missing")
    return kind(**given)


def _value(hint: Any, value: object, where: str) -> Any:
    """Return the value as the hint has it: lists become tuples, entries become dataclasses."""
    if isinstance(hint, types.UnionType):
        inner = next(part for part in hint.__args__ if part is not types.NoneType)
        return None if value is None else _value(inner, value, where)
    if dataclasses.is_dataclass(hint):
        return settings_of(hint, value, f"{where}.")  # type: ignore[arg-type]
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return _tuple(parts, value, where)
    if origin is typing.Literal:
        if type(value) not in {type(part) for part in parts} or value not in parts:
            raise InputError(f"'{where}' must be one of {', '.join(map(str, parts))}, got {excerpt(repr(value))}")
        return value
    if not _is(hint, value):
        raise InputError(f"'{where}' must be {WORDS[hint]}, got {excerpt(repr(value))}")
    return float(value) if hint is float else value  # type: ignore[arg-type]


def _tuple(parts: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"'{where}' must be a list, got {excerpt(repr(value))}")
    hints = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
    if len(hints) != len(value):
        raise InputError(f"'{where}' must be a list of {len(hints)}, got {excerpt(repr(value))}")
    return tuple(_value(hint, part, where) for hint, part in zip(hints, value, strict=True))


def _is(hint: type, value: object) -> bool:
    if hint is float:
        return type(value) in (int, float) and abs(value) <= WHOLE_LIMIT and math.isfinite(value)  # type: ignore[arg-type]
    if hint is int:
        return type(value) is int and abs(value) < WHOLE_LIMIT
    return type(value) is hint
