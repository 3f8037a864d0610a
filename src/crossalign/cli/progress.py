"""Progress of a long command on standard error: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress

import typer
from tqdm import tqdm

from crossalign.cli.terminal import one_line

SHARE, QUICK_SECONDS, SLOW_SECONDS = 0.1, 5.0, 30.0


class Progress:
    """Counts what is done of `total`, with the time left and a word on the last one.

    Without a terminal a line is printed every tenth of the way, but not within 5 seconds of the last one, and every 30
    seconds at least.
    """

    def __init__(self, total: int, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar = tqdm(total=total, unit=unit, disable=None, smoothing=0.05)
        self._plain = bool(self._bar.disable)
        self._total, self._unit, self._clock = total, unit, clock
        self._began = self._in_words = clock()
        self._first = self._done = self._done_when_told = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()

    def advance(self, note: str = "", done: int | None = None) -> None:
        """Count one more, or up to `done`, where the first call may start in the middle."""
        reached = self._done + 1 if done is None else done
        if self._done == 0 and reached > 1:  # a run that goes on
            self._first = self._done = self._done_when_told = reached - 1
            self._bar.initial = self._bar.n = reached - 1
        step, self._done = reached - self._done, reached
        if self._plain:
            self._tell(note)
            return
        self._bar.set_postfix_str(one_line(note), refresh=False)
        self._bar.update(step)

    def _tell(self, note: str) -> None:
        now = self._clock()
        waited, share = now - self._in_words, (self._done - self._done_when_told) / max(self._total, 1)
        if waited < SLOW_SECONDS and (waited < QUICK_SECONDS or share < SHARE):
            return
        self._in_words, self._done_when_told = now, self._done
        seconds = now - self._began
        left = seconds / max(self._done - self._first, 1) * (self._total - self._done)
        words = f"{self._done} of {self._total} {self._unit}s, {seconds:.0f} s, about {left:.0f} s left"
        with suppress(OSError, ValueError):
            typer.echo(one_line(f"crossalign: {words}" + (f": {note}" if note else "")), file=sys.stderr)
