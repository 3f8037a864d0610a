"""What the command line prints: results on standard output; errors, warnings and progress on standard error."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from crossalign.errors import InputWarning, OutputError
from crossalign.output import reason

LINE_LIMIT = 1000  # characters of an error or a warning
HEAD = 700
TENTH, QUICK_SECONDS, SLOW_SECONDS = 0.1, 5.0, 30.0


def visible(text: str) -> str:
    """Return a text whose control characters, escape sequences and undecodable bytes are spelled out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str) -> str:
    """Return a message on one line of bounded length: the middle of a long one is left out, its end kept."""
    line = visible(" ".join(text.split()))
    if len(line) <= LINE_LIMIT:
        return line
    return f"{line[:HEAD]} ... {line[HEAD + 5 - LINE_LIMIT :]}"


def print_lines(lines: Sequence[str]) -> None:
    """Print the lines of a result on standard output; raises OutputError where it cannot take them."""
    try:
        for line in lines:
            print(_encodable(visible(line)), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        close_output()
        raise OutputError(f"standard output: cannot be written: {reason(error)}") from error


def print_note(kind: str, text: str) -> None:
    """Print `crossalign: KIND: TEXT` on standard error, where there is one."""
    with suppress(OSError, ValueError):
        print(f"crossalign: {kind}: {one_line(text)}", file=sys.stderr, flush=True)


@contextmanager
def input_warnings(receive: Callable[[str], None]) -> Iterator[None]:
    """Pass what the readers warn of (InputWarning) to a function, each text once; issue other warnings as usual."""
    received: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        issue = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if not issubclass(category, InputWarning):
                issue(message, category, *place)
            elif str(message) not in received:
                received.add(str(message))
                receive(str(message))

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def close_output() -> None:
    """Discard the rest of standard output: its reader closed it, and Python would report an error when it ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _encodable(text: str) -> str:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class Progress:
    """Counts what is done of `total`, with the time left and a word on the last one.

    Without a terminal a line is printed every tenth of the way, but not within 5 seconds of the last one, and every 30
    seconds at least.
    """

    def __init__(self, total: int, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        from tqdm import tqdm  # 20 ms, which `--help` should not wait for

        self._bar = tqdm(total=total, unit=unit, disable=None, smoothing=0.05)
        self._plain = bool(self._bar.disable)
        self._total, self._unit, self._clock = total, unit, clock
        self._began = self._printed = clock()
        self._first = self._done = self._done_when_printed = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()

    def advance(self, note: str = "", done: int | None = None) -> None:
        """Count one more, or up to `done`, where the first call may start in the middle."""
        reached = self._done + 1 if done is None else done
        if self._done == 0 and reached > 1:  # a run that goes on
            self._first = self._done = self._done_when_printed = reached - 1
            self._bar.initial = self._bar.n = reached - 1
        step, self._done = reached - self._done, reached
        if self._plain:
            self._print(note)
            return
        self._bar.set_postfix_str(one_line(note), refresh=False)
        self._bar.update(step)

    def _print(self, note: str) -> None:
        now = self._clock()
        waited, fraction = now - self._printed, (self._done - self._done_when_printed) / max(self._total, 1)
        if waited < SLOW_SECONDS and (waited < QUICK_SECONDS or fraction < TENTH):
            return
        self._printed, self._done_when_printed = now, self._done
        seconds = now - self._began
        left = seconds / max(self._done - self._first, 1) * (self._total - self._done)
        words = f"{self._done} of {self._total} {self._unit}s, {seconds:.0f} s, about {left:.0f} s left"
        with suppress(OSError, ValueError):
            print(one_line(f"crossalign: {words}" + (f": {note}" if note else "")), file=sys.stderr, flush=True)
