"""Options from dataclasses: read strictly, and, of settings, only those that a command line names."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypedDict,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from cyclopts import Parameter, Token

from crossalign.errors import InputError, SettingError
from crossalign.fields import docs_of
from crossalign.input import excerpt, number_value, whole_value

S = TypeVar("S")
JSON_TEXT = "Print one JSON document on standard output: the result, the files written, warnings, or the error."
NUMBERS: Mapping[Any, Callable[[str, str], int | float]] = {int: whole_value, float: number_value}
EMPTY = "is empty: give a value, or leave the option out"


@dataclasses.dataclass(frozen=True)
class Given(Generic[S]):
    """The settings that a command line names, nested as the settings are; the others stay those of a base.

    `prefix` is what their options begin with: `mi.` of `--mi.bins`.
    """

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prefix: str = ""

    def over(self, base: S) -> S:
        """Return the base with these settings. Raises InputError, which names the option."""
        try:
            return _changed(base, self.values)
        except SettingError as error:
            raise InputError(f"{spelled(self.prefix + error.setting)} {error.problem}") from error

    def options(self) -> tuple[str, ...]:
        """Spell the options that were given."""
        return tuple(spelled(self.prefix + name) for name in self.values)


def _changed(base: Any, values: Mapping[str, Any], path: str = "") -> Any:
    changes = {
        name: _changed(getattr(base, name), value, f"{path}{name}.") if isinstance(value, Mapping) else value
        for name, value in values.items()
    }
    try:
        return dataclasses.replace(base, **changes)
    except SettingError as error:
        raise SettingError(f"{path}{error.setting}", error.problem) from error


def spelled(path: str) -> str:
    """Spell the option of a setting: `--stage.crop-shape` of `stage.crop_shape`."""
    return "--" + path.replace("_", "-")


def command(request: type[S]) -> Callable[..., S]:
    """Make what cyclopts calls: a function whose parameters are a request's fields, and which returns the request.

    Fields that are no keywords are arguments; fields of `Given` are groups of settings, one option for each. Every
    command has `--json` too, which is about how it answers and so no part of the request (see `cli.main`).
    """
    hints, docs = get_type_hints(request, include_extras=True), docs_of(request)
    fields = {field.name: field for field in _in_order(request)}

    def read(*arguments: Any, json: bool = False, **named: Any) -> S:  # noqa: ARG001 - see above
        named |= zip(fields, arguments, strict=False)
        values = {
            name: Given(value, _prefix(name, hints[name])) if _is_given(hints[name]) else value
            for name, value in named.items()
        }
        try:
            return request(**values)
        except SettingError as error:
            field = fields[error.setting]
            name = _name(field.name, hints[field.name]) if field.kw_only else field.name.upper()
            raise InputError(f"{name} {error.problem}") from error

    read.request = request  # type: ignore[attr-defined]
    read.__doc__ = request.__doc__
    read.__annotations__ = {}
    read.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY if field.kw_only else inspect.Parameter.POSITIONAL_ONLY,
                default={} if _is_given(hints[field.name]) else _default(field),
                annotation=_request_option(hints[field.name], docs.get(field.name, ""), field.default),
            )
            for field in fields.values()
        ]
        + [_json_parameter()]
    )
    return read


def _json_parameter() -> inspect.Parameter:
    hint = Annotated[bool, Parameter(help=JSON_TEXT, negative=(), show_default=False)]
    return inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=hint)


def _in_order(request: type[Any]) -> list[dataclasses.Field[Any]]:
    """Return the fields of a request: its arguments, required options, then the others, its own ahead of its base's."""
    own = inspect.get_annotations(request)

    def place(field: dataclasses.Field[Any]) -> tuple[bool, bool, bool]:
        return bool(field.kw_only), _default(field) is not inspect.Parameter.empty, field.name not in own

    return sorted(dataclasses.fields(request), key=place)


def _default(field: dataclasses.Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())


def _kind(hint: Any) -> Any:
    """Return the type of a value, without None and metadata; `float | int`, as ranges have it, is float."""
    held = _parts(hint)[0]
    if get_origin(held) not in (Union, types.UnionType):
        return held
    kinds = [kind for kind in get_args(held) if kind is not type(None)]
    return float if float in kinds else kinds[0]


def _is_given(hint: Any) -> bool:
    return get_origin(_parts(hint)[0]) is Given


def _name(name: str, hint: Any) -> str:
    """Return how an option of a request is spelled."""
    names = [extra.name for extra in _parts(hint)[1] if isinstance(extra, Parameter) and extra.name]
    return next(iter(names[0])) if names else spelled(name)


def _prefix(name: str, hint: Any) -> str:
    option = _name(name, hint)
    return "" if option == "*" else f"{option.removeprefix('--')}."


def _request_option(hint: Any, text: str, default: Any) -> Any:
    """Make the hint that cyclopts reads of that of a request's field."""
    held, extras = _parts(hint)
    if get_origin(held) is Given:
        with_defaults = not any(isinstance(extra, Parameter) and extra.show_default is False for extra in extras)
        return Annotated[_options(get_args(held)[0], with_defaults), *extras]
    how: dict[str, Any] = {"help": text, **_reading(held)}
    if held is bool:
        how["negative"] = ()
    if default is False or default is None or default == "" or default == ():
        how["show_default"] = False
    if default == "":
        how["converter"] = _read_text
    return Annotated[held, Parameter(**how), *extras]


def _setting_option(hint: Any, text: str, default: Any) -> Any:
    """Make the hint that cyclopts reads of that of a setting; `default` None shows none."""
    held, extras = _parts(hint)
    if dataclasses.is_dataclass(held):
        return _options(held, default is not None)  # type: ignore[arg-type]
    how = {"help": text, "show_default": _written(default), **_reading(held)}
    if held is str:
        how["converter"] = _read_text  # whether it may be empty the settings know
    return Annotated[held, Parameter(**how), *extras]


def _reading(held: Any) -> dict[str, Any]:
    """Say how many words a value has, and whether it may begin with a hyphen."""
    kind = _kind(held)
    if get_origin(kind) is tuple and _kind(get_args(kind)[0]) in NUMBERS:
        parts = ["..." if part is Ellipsis else _kind(part).__name__.upper() for part in get_args(kind)]
        return {"n_tokens": 1, "allow_leading_hyphen": True, "metavar": ",".join(parts)}
    return {"allow_leading_hyphen": True} if kind in NUMBERS else {}


@lru_cache
def _options(kind: type[Any], with_defaults: bool) -> Any:
    """Make the dictionary type of a settings dataclass: an option for each field, none of them required."""
    hints, docs, base = get_type_hints(kind, include_extras=True), docs_of(kind), kind() if with_defaults else None
    names = [field.name for field in dataclasses.fields(kind) if field.name not in getattr(kind, "RECORDS", ())]
    entries = {name: _setting_option(hints[name], docs.get(name, ""), getattr(base, name, None)) for name in names}
    make: Any = TypedDict  # whose checkers know no types that are made at run time
    made = make(kind.__name__, entries, total=False)
    made.__module__ = "settings"  # without a source: cyclopts has nothing to search for docstrings
    return made


def _written(value: Any) -> str | bool:
    """Write a default as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else value is not None and value != "" and str(value)


def _read_text(_kind: Any, tokens: Sequence[Token]) -> str:
    return tokens[0].value


def read_value(kind: Any, tokens: Sequence[Token]) -> Any:
    """Read the words of an option as its type, strictly: ASCII digits, finite, not empty. Raises InputError."""
    if is_typeddict(kind):
        first = next(iter(kind.__annotations__)).replace("_", "-")
        raise InputError(f"is a group of settings: set one of them, such as {tokens[0].keyword}.{first}")
    if get_origin(_kind(kind)) is not tuple:
        return _read(kind, tokens[0].value)
    kind = _kind(kind)
    numbers = _kind(get_args(kind)[0]) in NUMBERS
    words = [word for token in tokens for word in (token.value.split(",") if numbers else [token.value])]
    kinds = get_args(kind)[:1] * len(words) if get_args(kind)[-1] is Ellipsis else get_args(kind)
    if len(words) != len(kinds):
        raise InputError(f"takes {len(kinds)} values with commas between them, got '{excerpt(','.join(words), 40)}'")
    return tuple(_read(kind, word) for kind, word in zip(kinds, words, strict=True))


def _read(kind: Any, word: str) -> Any:
    held = _kind(kind)
    if word == "":
        raise InputError(EMPTY)
    if held in NUMBERS:
        return NUMBERS[held](word, "cannot be read")
    if held is bool:
        return _read(Literal["true", "false"], word) == "true"
    if get_origin(held) is Literal:
        choices = {str(choice): choice for choice in get_args(held)}
        if word not in choices:
            raise InputError(f"must be one of {', '.join(choices)}, got '{excerpt(word, 40)}'")
        return choices[word]
    return held(word)
