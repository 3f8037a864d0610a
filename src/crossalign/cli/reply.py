"""What a command answers: lines to read, or with `--json` one JSON document on standard output."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from os import fspath
from pathlib import Path, PurePath
from typing import Any, Generic, TypeVar

from crossalign.cli.console import print_lines, print_note
from crossalign.errors import OutputError

JSON = "--json"
SCHEMA = 1  # of the document; it grows where a field goes or changes its meaning
NOTE = "Research software, not a medical device."


R_co = TypeVar("R_co", covariant=True)


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[R_co]):
    """What a command has to say: lines for standard output, warnings for standard error, and the exit status.

    With `--json` its `result`, a dataclass of `cli.results`, and the files that it wrote stand in place of the lines.
    """

    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    status: int = 0
    result: R_co | None = None
    outputs: tuple[Path, ...] = ()


class Reply:
    """Answers for one call of the command line, and keeps its warnings, which the document holds too."""

    def __init__(self, command: str, as_json: bool) -> None:
        self.command, self.as_json = command, as_json
        self._warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Print a warning on standard error, and keep it."""
        print_note("warning", text)
        self._warnings.append(text)

    @contextmanager
    def reserved_output(self) -> Iterator[None]:
        """Send what a library prints on standard output to standard error, where the document is to stand alone."""
        if not self.as_json:
            yield
            return
        with redirect_stdout(sys.stderr):
            yield

    def succeed(self, answer: Outcome[Any]) -> int:
        """Print what a command returned; return its exit status. Raises OutputError."""
        if not self.as_json:
            print_lines(answer.lines)
        for warning in answer.warnings:
            self.warn(warning)
        if self.as_json:
            self._print(answer.status, result=answer.result, outputs=answer.outputs)
        return int(answer.status)

    def fail(self, kind: str, message: str, status: int) -> int:
        """Print an error; return its exit status."""
        print_note("error", message)
        if self.as_json:
            with suppress(OutputError):  # standard output takes nothing: the exit status and standard error tell
                self._print(status, error={"type": kind, "message": message})
        return status

    def _print(self, status: int, result: Any = None, error: Any = None, outputs: tuple[PurePath, ...] = ()) -> None:
        from crossalign import __version__

        document = {
            "command": self.command,
            "version": __version__,
            "schema": SCHEMA,
            "status": int(status),
            "result": result,
            "error": error,
            "outputs": outputs,
            "warnings": self._warnings,
            "note": NOTE,
        }
        print_lines([json.dumps(plain(document), indent=2, allow_nan=False)])


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses as objects, tuples as arrays, paths as text, NaN and infinity as null.

    Raises TypeError for anything else.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, PurePath):
        return plain(fspath(value))
    if isinstance(value, str):  # bytes of a name that are no UTF-8 are no text of JSON either
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    raise TypeError(f"JSON has nothing for {type(value).__name__}")
