"""The command line: its commands, exit statuses, and errors on one line. A command is imported when it runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import CoercionError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError

from crossalign.cli.console import close_output, input_warnings, print_lines
from crossalign.cli.failures import USAGE_STATUS, explained
from crossalign.cli.imports import lean_nibabel, quick_imports
from crossalign.cli.options import read_value
from crossalign.cli.reply import JSON, Reply
from crossalign.cli.signals import Stopped, stoppable
from crossalign.errors import InputError

CLOSED_PIPE_STATUS = 141
HELP, VERSION, DEBUG = ("--help", "-h"), "--version", "--debug"
JSON_TAKES_NO_VALUE = f"{JSON} takes no value, it prints to standard output (register --record FILE writes a file)"


class Command(NamedTuple):
    """What a command takes (in `cli.requests`), what it does (in `cli`), and its line in the list of commands."""

    takes: str
    does: str
    text: str


COMMANDS: Mapping[str, Command] = {
    "register": Command(
        "registration:register",
        "registration.command:run_register",
        "Find where the points of the FIXED image lie in the MOVING image.",
    ),
    "register-onnx": Command(
        "onnx_registration:register_onnx",
        "onnx_registration:run_register_onnx",
        "Register by exported networks with onnxruntime, without torch.",
    ),
    "batch": Command("batch:batch", "batch.command:run_batch", "Register every pair of a cohort, without truth."),
    "apply": Command(
        "registration:apply", "application:run_apply", "Resample an image onto the other image's grid, or map points."
    ),
    "transform convert": Command(
        "transforms:convert", "transforms:run_convert", "Write a linear transform in another program's format."
    ),
    "transform invert": Command("transforms:invert", "transforms:run_invert", "Write the inverse of a transform."),
    "transform compose": Command(
        "transforms:compose", "transforms:run_compose", "Write one transform that does what several do."
    ),
    "demo": Command("registration:demo", "demonstration:run_demo", "Register a simulated pair, with a report."),
    "explain": Command(
        "registration:explain", "explanation:run_explain", "Show what a registration network attended to."
    ),
    "evaluate": Command(
        "evaluation:evaluate", "evaluation:run_evaluate", "Measure methods on cases whose answer is known."
    ),
    "calibrate": Command("evaluation:calibrate", "models:run_calibrate", "Fit the expected SRE to the true one."),
    "models": Command("evaluation:models", "models:run_models", "List methods and models, or print a model's card."),
    "combine": Command("evaluation:combine", "models:run_combine", "Combine models or stage files into one model."),
    "export": Command("export:export", "export:run_export", "Write the networks of a model as ONNX files."),
    "simulate": Command("training:simulate", "simulation:run_simulate", "Write simulated pairs whose truth is known."),
    "train": Command("training:train", "training:run_train", "Train one stage of a network."),
    "adapt": Command("training:adapt", "adaptation:run_adapt", "Adapt a model to the pairs of one's own site."),
    "pretrain": Command("training:pretrain", "pretraining:run_pretrain", "Pre-train extractors by contrast."),
    "train-error-head": Command(
        "training:train_error_head", "training:run_train_error_head", "Train a stage's error-estimation head anew."
    ),
    "fuse": Command("fusion:fuse", "fusion.volume:run_fuse", "Fuse an MRI and a PET into one volume."),
    "evaluate-fusion": Command(
        "fusion:evaluate_fusion", "fusion.evaluation:run_evaluate_fusion", "Score fusion methods on registered pairs."
    ),
    "prepare-fusion": Command(
        "fusion:prepare_fusion", "fusion.preparation:run_prepare_fusion", "Prepare MRI-PET pairs as the paper did."
    ),
    "train-fusion": Command("fusion:train_fusion", "fusion.training:run_train_fusion", "Train a fusion network."),
}
GROUPS: Mapping[str, str] = {"transform": "Convert, invert and compose transform files."}  # commands of two words
# What earlier versions called options. An option that now exists in a command is never looked up here.
EARLIER = {
    "--starts": "--initialisations, or of evaluate --initial-sre-mm",
    "--header-turn": "--orientation-correction",
    "--run": "an option for each setting, such as --initialisations 8",
    "--threshold": "--threshold-mm",
    "--weights": "--model",
    "--model": "--stage.network",
    "--crop-shape": "--stage.crop-shape",
    "--crop-spacing": "--stage.crop-spacing-mm",
    "--fixed-input": "--stage.fixed-input",
    "--start-sre": "--initial-sre-mm 0,20",
    "--augmentation": "--augmentation-preset",
    "--augment": "--augmentation-preset usual",
    "--no-augment": "--augmentation-preset none",
    "--mirror": "--augmentation.mirror",
    "--val-starts": "--val-initialisations",
    "--average": "--ema-decay",
    "--recombine": "--synthesised-pairs",
    "--shapes-share": "--shapes-fraction",
    "--places": "--tokens",
    "--margin": "--margin-mm",
    "--radius": "--radius-mm",
    "--seen-only": "--foreground-only",
    "--everywhere": "--no-foreground-only",
    "--transfer": "--qabf-weights",
    "--lesions": "--lesion-weight",
}
ORIENTATION = ("--fixed-orientation", "--moving-orientation", "--recognition")  # what register-onnx cannot do

app = App(
    name="crossalign",
    help="Registers 3-D images of different modalities and fuses MRI and PET. Research software, not a medical device.",
    help_epilogue=f"{VERSION} prints the version; {DEBUG}, anywhere, the traceback of an error. "
    f"With {JSON} a command prints one JSON document.",
    help_format="plaintext",
    version_flags=(),
    default_parameter=Parameter(
        converter=read_value, negative_iterable=(), json_dict=False, json_list=False, allow_repeating=True
    ),
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
for _name, _text in GROUPS.items():
    app.command(App(name=_name, help=_text, help_format="plaintext", version_flags=()))
for _name, _command in COMMANDS.items():
    _group, _, _last = _name.rpartition(" ")
    _of = app[_group] if _group else app
    _of.command(f"crossalign.cli.requests.{_command.takes}", name=_last, help=_command.text)


def command_app(name: str) -> App:
    """Return what reads the command of a name of `COMMANDS`, which may be of two words."""
    found = app
    for word in name.split():
        found = found[word]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status.

    0, 2 for what the user can mend, 3 for a result that is not to be trusted (`register --strict`), 1 for any other
    failure, 128 and the signal's number when stopped by one (130 for Ctrl-C, 143 for SIGTERM), 141 where standard
    output was closed by its reader. `--json` changes what is printed, not the status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in given
    words = [word for word in given if word not in (DEBUG, JSON)]
    reply = Reply(_command_name(words), JSON in given)
    try:
        return _answered(words, reply, debug)
    except (BrokenPipeError, SystemExit):  # rich, which prints help, exits by itself for this alone
        close_output()
        return CLOSED_PIPE_STATUS


def _answered(words: Sequence[str], reply: Reply, debug: bool) -> int:
    """Run a command and print what came of it, an error too."""
    try:
        with stoppable(), input_warnings(reply.warn):
            return _run(words, reply)
    except Stopped as stop:
        return _fail(reply, stop, (stop.text(), stop.status()), debug)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as stop:
        return _fail(reply, stop, ("interrupted", 130), debug)
    except Exception as error:  # noqa: BLE001 - the last frame before the user
        return _fail(reply, error, _explained(error, reply, debug), debug)


def _run(words: Sequence[str], reply: Reply) -> int:
    name = _command_name(words)
    if not words or any(word in HELP for word in words) or (list(words) == [name] and name in GROUPS):
        with quick_imports():  # printed as the app does, without parsing first
            app.help_print(name.split() if name in (*COMMANDS, *GROUPS) else [])
        return 0
    if list(words) == [VERSION]:
        from crossalign import __version__

        print_lines([f"crossalign {__version__}"])
        return 0
    if any(word.startswith(f"{JSON}=") for word in words):
        raise InputError(JSON_TAKES_NO_VALUE)
    with quick_imports():
        request = app(list(words))
    with reply.reserved_output(), lean_nibabel():
        outcome = function_of(name)(request)
    return reply.succeed(outcome)


def function_of(name: str) -> Callable[[Any], Any]:
    """Import what a command does: a function from its request to its outcome."""
    module, _, function = COMMANDS[name].does.partition(":")
    with quick_imports():
        found: Callable[[Any], Any] = getattr(import_module(f"crossalign.cli.{module}"), function)
    return found


def _command_name(words: Sequence[str]) -> str:
    """Return the command that is called, of one word or of two; the group where its second word is missing or wrong."""
    first = words[0] if words else ""
    both = " ".join(words[:2])
    return both if first in GROUPS and both in COMMANDS else first


def _explained(error: Exception, reply: Reply, debug: bool) -> tuple[str, int]:
    """Return what to say of an error, and the exit status."""
    if isinstance(error, CycloptsError):
        of = " ".join(["crossalign", *(error.command_chain or ())])
        problem = _usage_problem(error)
        if reply.as_json and isinstance(error, UnusedCliTokensError):
            problem += f": {JSON_TAKES_NO_VALUE}"
        return f"{problem} (see {of} --help)", USAGE_STATUS
    return explained(error, debug)


def _usage_problem(error: CycloptsError) -> str:
    """Say what is wrong with a command line."""
    unused = [word.partition("=")[0] for word in error.unused_tokens or () if word.startswith("-")]
    if isinstance(error, UnknownOptionError):
        unused.insert(0, str(error.token.keyword))
    elsewhere = _found_elsewhere(unused, error.command_chain or ())
    if isinstance(error, (UnknownOptionError, MissingArgumentError, UnusedCliTokensError)) and elsewhere is not None:
        return elsewhere
    if isinstance(error, MissingArgumentError) and unused:
        return f"unknown option {unused[0]}"
    if isinstance(error, MissingArgumentError) and error.argument is not None and not error.argument.tokens:
        return f"{error.keyword or error.argument.name} is missing"
    if isinstance(error, CoercionError) and error.argument is not None:
        name = error.token.keyword if error.token is not None else None
        return f"{name or error.argument.name} {error.__cause__}"
    if isinstance(error, UnusedCliTokensError):
        return f"unexpected {' '.join(error.unused_tokens or ())}"
    return str(error).rstrip(".")


def _found_elsewhere(unused: Sequence[str], command: Sequence[str]) -> str | None:
    """Say what to use in place of an option that has another name now, or that another command has."""
    for word in unused:
        if word in EARLIER:
            return f"{word} is no option any more: use {EARLIER[word]}"
        if word in ORIENTATION and tuple(command) == ("register-onnx",):
            return (
                f"{word}: nothing here recognises how axes point: use `crossalign register`, "
                "or where both headers are wrong by a quarter turn about z, --orientation-correction"
            )
    return None


def _fail(reply: Reply, error: BaseException, said: tuple[str, int], debug: bool) -> int:
    if debug:
        traceback.print_exc()
    kind = "UsageError" if isinstance(error, CycloptsError) else type(error).__name__
    return reply.fail(kind, *said)
