"""Every setting has one spelling, the path of its field: each is set from the command line, saved and read again."""

import dataclasses
import importlib
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import crossalign
from crossalign.cli.main import COMMANDS, app
from crossalign.cli.options import Given
from crossalign.errors import InputError
from crossalign.fields import docs_of, settings_of
from crossalign.models import RunSettings, StageSettings
from crossalign.models.recognition_settings import RecognitionSettings
from crossalign.training import TrainingSettings
from crossalign.training.tasks.recognition import RecognitionTrainingSettings

LINES = {
    "register": "a b --output-transform c",
    "explain": "a b -o c",
    "evaluate": "m --method mi --initial-sre-mm 8 -o c",
    "calibrate": "t",
    "combine": "a b -o c",
    "simulate": "1 -o c",
    "train": "-o c",
    "adapt": "m -o c",
    "pretrain": "-o c",
    "train-error-head": "s -o c",
    "train-fusion": "-o c",
    "fuse": "a b -o c",
    "evaluate-fusion": "m --method average -o c",
}
OTHER = {"network": "msreg", "mirror": "z"}  # texts of which only some are valid


def request_of(name: str) -> type:
    module, _, function = COMMANDS[name].takes.partition(":")
    read = getattr(importlib.import_module(f"crossalign.cli.requests.{module}"), function)
    kind: type = read.request
    return kind


def given_of(name: str) -> Iterator[tuple[str, str, type]]:
    """Yield the fields of a command that hold settings: the field, its option's beginning, and the settings' type."""
    for field, hint in typing.get_type_hints(request_of(name), include_extras=True).items():
        parts = typing.get_args(hint)
        if parts and typing.get_origin(parts[0]) is Given:
            option = next(extra.name for extra in parts[1:] if extra.name)[0]
            yield field, "" if option == "*" else option.removeprefix("--") + ".", typing.get_args(parts[0])[0]


def paths(settings: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in getattr(settings, "RECORDS", ()):
            continue
        if dataclasses.is_dataclass(value):
            yield from paths(value, (*path, field.name))
        else:
            yield (*path, field.name), hints[field.name], value


def other(name: str, hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        return next(choice for choice in typing.get_args(hint) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return tuple(part + 8 if isinstance(part, int) else part + 0.25 for part in value)
    if isinstance(value, int):
        return value + 1
    if value is None:  # of a window
        return (1.0, 2.0)
    return OTHER[name] if isinstance(value, str) else value * 0.5 or 0.25


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {path[0]: value if len(path) == 1 else nested(path[1:], value)}


@pytest.mark.parametrize("name", LINES)
def test_each_setting_is_set_by_the_path_of_its_field(name: str) -> None:
    for field, prefix, kind in given_of(name):
        for path, hint, value in paths(kind()):
            new = other(path[-1], hint, value)
            option = (prefix + ".".join(path)).replace("_", "-")
            start, _, last = option.rpartition(".")
            off = f"{start}.no-{last}" if start else f"no-{last}"
            spelled = ",".join(map(str, new)) if isinstance(new, tuple) else str(new)
            words = [f"--{option if new else off}"] if isinstance(new, bool) else [f"--{option}", spelled]
            request = app([name, *LINES[name].split(), *words])
            given = getattr(request, field)
            assert given.values == nested(path, new), words
            assert all(not getattr(request, rest).values for rest, _, _ in given_of(name) if rest != field)
            with suppress(InputError):  # of a value that only another setting allows
                changed = given.over(kind())
                assert settings_of(kind, dataclasses.asdict(changed)) == changed != kind()


def test_every_settings_dataclass_is_reached_by_a_command() -> None:
    reached: set[type] = set()

    def reach(kind: type) -> None:
        reached.add(kind)
        for hint in typing.get_type_hints(kind).values():
            if isinstance(hint, type) and dataclasses.is_dataclass(hint):
                reach(hint)

    for name in LINES:
        for _, _, kind in given_of(name):
            reach(kind)
    found = set()
    for module in pkgutil.walk_packages(crossalign.__path__, "crossalign."):
        if module.name.endswith("__main__"):
            continue
        members = vars(importlib.import_module(module.name)).values()
        found |= {
            member
            for member in members
            if isinstance(member, type) and dataclasses.is_dataclass(member)
            if member.__name__.endswith(("Settings", "Augmentation")) and member.__module__ == module.name
        }
    assert len(found) >= 15
    found -= {RecognitionSettings, RecognitionTrainingSettings}  # of recipes/train_orientation.py alone
    assert found == reached


def test_every_option_is_documented_and_no_command_has_too_many() -> None:
    for name in COMMANDS:
        kind = request_of(name)
        givens = {field: settings for field, _, settings in given_of(name)}
        plain = {field.name for field in dataclasses.fields(kind)} - set(givens)
        assert plain <= set(docs_of(kind)), name
        for settings in givens.values():
            assert _documented(settings), settings
        assert len(plain) + sum(len(list(paths(settings()))) for settings in givens.values()) <= 100


def _documented(kind: type) -> bool:
    names = {field.name for field in dataclasses.fields(kind)}
    parts = [hint for hint in typing.get_type_hints(kind).values() if isinstance(hint, type)]
    return names <= set(docs_of(kind)) and all(_documented(part) for part in parts if dataclasses.is_dataclass(part))


def test_python_and_the_command_line_say_the_same() -> None:
    request = app(["train", "-o", "c", "--stage.crop-shape", "32,96,96", "--stage.network", "msreg", "--steps", "7"])
    wanted = TrainingSettings(stage=StageSettings(network="msreg", crop_shape=(32, 96, 96)), steps=7)
    assert request.settings.over(TrainingSettings()) == wanted


def test_what_is_not_given_is_that_of_the_base() -> None:
    base = RunSettings(initialisations=8, search=True, refinement_step=0.5)
    assert Given[RunSettings]({}).over(base) == base
    assert Given[RunSettings]({"search": False}).over(base) == dataclasses.replace(base, search=False)


def test_a_setting_out_of_its_bounds_names_its_option() -> None:
    given = Given[TrainingSettings]({"stage": {"crop_spacing_mm": 0.0}}, "a.")
    with pytest.raises(InputError, match=r"^--a\.stage\.crop-spacing-mm must be over 0"):
        given.over(TrainingSettings())


def test_help_waits_for_nothing_heavy() -> None:
    code = (
        "import sys; from crossalign.cli.main import COMMANDS, main\n"
        "for name in ['', *COMMANDS]: assert main([*name.split(), '--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'SimpleITK', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
