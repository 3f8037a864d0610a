"""The values of options, read strictly: ASCII digits, finite, within bounds, and no empty words.

typer reads numbers as Python's int() and float() do, which take `1_000`, ` 5`, `nan` and digits of any script, and it
takes an empty word for a name or a path. `strict_values` gives every option and argument of a command line a parser.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from crossalign.errors import InputError
from crossalign.input import number_value, whole_value

METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


def strict_values(app: typer.Typer) -> None:
    """Make every command of the app read its numbers, texts and paths strictly."""
    for command in app.registered_commands:
        if command.callback is None:
            continue
        function = inspect.unwrap(command.callback)  # the tests wrap functions to check their types
        parameters = inspect.signature(function).parameters
        hints = get_type_hints(function, include_extras=True)
        for name, parameter in parameters.items():
            hints[name] = _strict(hints[name], parameter.default)
        function.__annotations__ = hints


def _strict(hint: Any, default: object) -> Any:
    kind, info = _kind(hint)
    if kind not in METAVARS or info is None or info.parser is not None:
        return hint
    if isinstance(info, OptionInfo):  # an argument's is its name
        info.metavar = info.metavar or METAVARS[kind]
    if not (kind is str and default == ""):
        info.parser = _parser(kind, info.min, info.max)
    return hint


def _kind(hint: Any) -> tuple[Any, OptionInfo | ArgumentInfo | None]:
    """Return the type that a parameter holds, without None, and what typer knows of it."""
    if get_origin(hint) is not Annotated:
        return None, None
    held, *extras = get_args(hint)
    if get_origin(held) in (Union, types.UnionType):
        held = next(part for part in get_args(held) if part is not type(None))
    return held, next((extra for extra in extras if isinstance(extra, OptionInfo | ArgumentInfo)), None)


def _parser(kind: Any, low: int | float | None, high: int | float | None) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, str):  # a default
            return value
        if value == "":
            raise typer.BadParameter("is empty: give a value, or leave the option out")
        if kind in (str, Path):
            return kind(value)
        try:
            number = whole_value(value, "the value") if kind is int else number_value(value, "the value")
        except InputError as error:
            raise typer.BadParameter(str(error)) from error
        if (low is not None and number < low) or (high is not None and number > high):
            bounds = " and ".join(
                [*([] if low is None else [f"at least {low:g}"]), *([] if high is None else [f"at most {high:g}"])]
            )
            raise typer.BadParameter(f"got {value}, expected {bounds}")
        return number

    return read
