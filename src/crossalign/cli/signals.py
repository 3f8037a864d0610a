"""Being told to stop: SIGTERM and SIGHUP end a command as Ctrl-C does, and what it had not finished is removed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from crossalign.output import discard_partials

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Tools such as `timeout` send a signal to the process and to its group: the second one must not end the tidying.
REPEATED_SECONDS = 2.0


class Stopped(BaseException):
    """A signal asked the process to stop. No Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def status(self) -> int:
        """Exit status of a process that a signal ended, as shells count it."""
        return 128 + self.number

    def text(self) -> str:
        """Say what happened."""
        if self.number == signal.SIGINT:
            return "interrupted"
        return f"stopped by {signal.Signals(self.number).name}; outputs that were not finished have been removed"


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped where a signal asks to stop, and remove what is unfinished; the old handlers come back after.

    Signals that are ignored (nohup) or that the embedding program handles stay as they are, and so do all of them
    outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process, last = os.getpid(), -REPEATED_SECONDS

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != process:  # a child that inherited the handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if time.monotonic() - last >= REPEATED_SECONDS:
            last = time.monotonic()
            raise Stopped(number)

    ours = [number for number in SIGNALS if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)]
    old = {number: signal.signal(number, stop) for number in ours}
    try:
        yield
    except Stopped:
        discard_partials()
        raise
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
