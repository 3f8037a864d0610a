"""Types of the arguments that users pass to public functions, checked against the annotations."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
NUMBERS: Mapping[Any, Any] = {int: Integral, float: Real}  # numpy's too


def checked(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function check these of its arguments before it runs, by its annotations.

    A call then raises TypeError, which names the argument, what was got and what was expected, instead of an error from
    deep within. Of sequences and mappings each value is checked.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> R:
            given = signature.bind(*arguments, **named).arguments
            hints = _hints(function)
            for name in names:
                if name in given and not fits(given[name], hints[name]):
                    got = type(given[name]).__name__
                    raise TypeError(f"{function.__name__}(): {name}: expected {words(hints[name])}, got {got}")
            return function(*arguments, **named)

        return call

    return decorate


@lru_cache
def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    return typing.get_type_hints(function)


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is what an annotation says; text is no sequence of things other than text."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin is Mapping:
        return isinstance(value, Mapping) and all(fits(part, parts[1]) for part in value.values())
    if origin is Sequence:
        listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        return listed and all(fits(part, parts[0]) for part in value)
    if hint is None or hint is types.NoneType:
        return value is None
    return isinstance(value, NUMBERS.get(hint, origin or hint))


def words(hint: Any) -> str:
    """Say what an annotation takes: `text or None`, `a sequence of Method`."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(part) for part in parts)
    if origin is typing.Literal:
        return " or ".join(f"'{part}'" for part in parts)
    if origin is Sequence:
        return f"a sequence of {words(parts[0])}"
    if origin is Mapping:
        return f"a mapping from {words(parts[0])} to {words(parts[1])}"
    if hint is types.NoneType:
        return "None"
    return {str: "text", int: "a whole number", float: "a number"}.get(hint) or str(getattr(hint, "__name__", hint))
