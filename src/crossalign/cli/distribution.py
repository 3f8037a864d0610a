"""Training in several processes of this machine: they are started, watched and stopped by torch's elastic agent."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import uuid
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

import crossalign.errors
from crossalign.cli.checks import pick_device
from crossalign.cli.console import input_warnings, print_note
from crossalign.cli.signals import Stopped, stoppable
from crossalign.errors import CrossalignError, InputError, InputWarning
from crossalign.training.distributed import ProcessLostError, check_accelerate, is_one_of_several, join_processes
from crossalign.training.processes import Processes

AGENT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
GOES_ON = "the same command goes on from the last checkpoint"
R = TypeVar("R")
T = TypeVar("T")


def distributed(work: Callable[[R, Processes, torch.device], T], request: R, device: str, devices: int) -> T | None:
    """Do what a command does in as many processes as there are to be `devices`; return the first one's result.

    `work` is a function of a module, which each process imports, and all that it takes and returns must be picklable.
    None in a process that is not the first of those that torchrun started. Raises CrossalignError, also those of a
    process, and ProcessLostError where one was killed.
    """
    place = pick_device(device)
    if is_one_of_several():
        if devices > 1:
            raise InputError("--devices: torchrun has started the processes already: leave the option out")
        return _join(work, request, place)
    if devices == 1:
        return work(request, *join_processes(place))
    check_accelerate()
    if place.type == "cuda" and torch.cuda.device_count() < devices:
        count = torch.cuda.device_count()
        raise InputError(f"--devices {devices}: torch sees {count} here: give {count}, or --device cpu")
    return _launch(devices, _process, (work, request, device))


def _join(work: Callable[[R, Processes, torch.device], T], request: R, device: torch.device) -> T | None:
    """Work as one of several processes; only the first one shows warnings."""
    processes, own = join_processes(device)
    if processes.is_first():
        return work(request, processes, own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        work(request, processes, own)
    return None


def _launch(count: int, work: Callable[..., T], arguments: tuple[object, ...]) -> T:
    """Start this many processes, and return the first one's result."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _quiet()
    threads = max(1, (os.cpu_count() or 1) // count)
    with tempfile.TemporaryDirectory(prefix="crossalign-") as folder, _environment({"OMP_NUM_THREADS": str(threads)}):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            run_id=uuid.uuid4().hex,
            nproc_per_node=count,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        handlers = {one: signal.getsignal(one) for one in AGENT_SIGNALS}
        try:
            results: Mapping[int, T] = elastic_launch(config, work)(*arguments)
        except ChildFailedError as error:
            raise _what_failed(error) from error
        except SignalException as error:
            raise Stopped(int(error.sigval)) from error
        finally:  # the agent leaves its own
            for one, handler in handlers.items():
                if handler is not None:  # None: set by no Python code
                    signal.signal(one, handler)
    return results[0]


def _process(work: Callable[[R, Processes, torch.device], T], request: R, device: str) -> T | None:
    """Work in a process that was started here."""
    _quiet()
    first = os.environ["RANK"] == "0"
    shown = input_warnings(lambda text: print_note("warning", text)) if first else nullcontext()
    try:
        with stoppable(), shown:
            return _join(work, request, pick_device(device))
    except Stopped as stop:
        for number in AGENT_SIGNALS:  # the agent passes on what the terminal has sent to all already
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(stop.status()) from None


def _quiet() -> None:
    """Leave it to this program to say what went wrong."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).disabled = True


class _environment:  # noqa: N801 (a context manager)
    """Set variables that are not set, for the processes that are started within."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {name: value for name, value in values.items() if name not in os.environ}
        self._values |= {"TORCH_CPP_LOG_LEVEL": "ERROR"} if "TORCH_CPP_LOG_LEVEL" not in os.environ else {}

    def __enter__(self) -> None:
        os.environ.update(self._values)

    def __exit__(self, *_error: object) -> None:
        for name in self._values:
            del os.environ[name]


def _what_failed(error: Any) -> CrossalignError:
    """Say which process failed and why: one that a signal ended goes ahead of those that only lost it."""
    failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
    for rank, failure in failures:
        if failure.exitcode < 0:
            return ProcessLostError(f"process {rank} of the training was ended by {failure.signal_name()}: {GOES_ON}")
    told = [_message(failure) for _, failure in failures]
    name, text = next((one for one in told if one[0] != ProcessLostError.__name__), told[0])
    kind = getattr(crossalign.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, CrossalignError) and kind is not crossalign.errors.SettingError:
        return kind(text)
    return ProcessLostError(f"a process of the training failed ({name}: {text}): {GOES_ON}")


def _message(failure: Any) -> tuple[str, str]:
    """Return the name of a process's error and its text."""
    message = failure.message
    told = str(message.get("message", "")) if isinstance(message, dict) else str(message)
    name, colon, text = told.partition(": ")
    return (name, text) if colon and name.isidentifier() else ("error", told)
