"""What is said of an error: on one line, with the exit status that it gives."""

from __future__ import annotations

import os

from crossalign.errors import CrossalignError
from crossalign.output import reason

USAGE_STATUS, FAILURE_STATUS = 2, 1
NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "bad allocation", "bad_alloc")


def explained(error: BaseException, debug: bool = False) -> tuple[str, int]:
    """Return what to say of an error, and the exit status: 2 for what the user can mend, 1 for the unexpected."""
    if isinstance(error, CrossalignError):
        return str(error), USAGE_STATUS
    if isinstance(error, OSError):
        what = "a file" if error.filename is None else os.fsdecode(error.filename)
        return f"{what}: cannot be read or written: {reason(error)}", USAGE_STATUS
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY):
        advice = "close other programs, crop or resample the images, or use a larger machine"
        return f"there is not enough memory for this: {advice}", USAGE_STATUS
    hint = "" if debug else " (run again with --debug for the traceback)"
    return f"unexpected {type(error).__name__}: {error}{hint}", FAILURE_STATUS
