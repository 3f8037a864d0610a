"""Fields of settings dataclasses: their bounds and choices, their documentation, and their values from JSON."""

import ast
import dataclasses
import inspect
import math
import sys
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from crossalign.errors import InputError, SettingError
from crossalign.input import excerpt

Settings = TypeVar("Settings")
Bounds: TypeAlias = Mapping[str, tuple[float | int, float | int]]  # int for the checks of types in the tests
WHOLE_LIMIT = 2**63
WORDS = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


def check_bounds(settings: object, bounds: Bounds) -> None:
    """Raise SettingError where a number is outside its bounds, ends included, or not finite; None is any."""
    for name, (least, most) in bounds.items():
        value = getattr(settings, name)
        if value is None:
            continue
        if not value >= least:
            raise SettingError(name, f"must be {least:g} or more, got {value}")
        if value > most or value == math.inf:
            raise SettingError(name, f"must be {'finite' if most == math.inf else f'{most:.12g} or less'}, got {value}")


def check_over_zero(settings: object, *names: str) -> None:
    """Raise SettingError where one of these numbers is not over 0, or not finite."""
    for name in names:
        if not 0 < getattr(settings, name) < math.inf:
            raise SettingError(name, f"must be over 0 and finite, got {getattr(settings, name)}")


def check_choices(settings: object) -> None:
    """Raise SettingError where a setting whose type is a `Literal` is none of its values."""
    for name, hint in typing.get_type_hints(type(settings)).items():
        if typing.get_origin(hint) is typing.Literal and getattr(settings, name) not in typing.get_args(hint):
            listed = ", ".join(map(str, typing.get_args(hint)))
            raise SettingError(name, f"must be one of {listed}, got {excerpt(repr(getattr(settings, name)))}")


def docs_of(kind: type) -> Mapping[str, str]:
    """Return the documentation of each field of a dataclass and its bases: the text below it in the source."""
    bases = [base for base in reversed(kind.__mro__) if dataclasses.is_dataclass(base)]
    return {name: text for base in bases for name, text in _own_docs(base).items()}


def _own_docs(kind: type) -> Mapping[str, str]:
    return _module_docs(kind.__module__).get(kind.__name__, {})


@lru_cache
def _module_docs(name: str) -> Mapping[str, Mapping[str, str]]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except OSError:  # installed without its source
        return {}
    return {part.name: _field_docs(part) for part in tree.body if isinstance(part, ast.ClassDef)}


def _field_docs(part: ast.ClassDef) -> Mapping[str, str]:
    docs = {}
    for field, text in zip(part.body, part.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            docs[field.target.id] = " ".join(text.value.value.split())
    return docs


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
