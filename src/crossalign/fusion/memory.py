"""How much memory a fusion takes, and whether it is there: asked before the work, not found out by being killed."""

from __future__ import annotations

import math

from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images.memory import available_bytes

BYTES_EACH = 4


def check_memory(a: Grid, b: Grid, method: str, method_bytes: int) -> None:
    """Raise ImageError where fusing a's and b's scans would take more memory than is free.

    `method_bytes` is what the method takes beside both inputs on a's grid. Where the system does not say how much is
    free, nothing is refused.
    """
    needed, free = needed_bytes(a, b, method_bytes), available_bytes()
    if free is None or needed <= free:
        return
    size = " x ".join(str(n) for n in a.shape[::-1])
    raise ImageError(
        f"fusing {size} voxels by '{method}' takes {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are "
        "free: crop or resample the MRI (the result lies on its grid), or use --method average, which takes least"
    )


def needed_bytes(a: Grid, b: Grid, method_bytes: int) -> int:
    """Return about how much `fuse` takes at its peak beside the two scans that it is given."""
    of_a, of_b = math.prod(a.shape), math.prod(b.shape)
    scaling = BYTES_EACH * (of_a + 3 * of_b)  # a scaled, and what b's percentiles and its scaling take
    moving = BYTES_EACH * (2 * of_a + of_b)  # a scaled; b scaled, on its own grid and on a's
    return max(scaling, moving, 2 * BYTES_EACH * of_a + method_bytes)
