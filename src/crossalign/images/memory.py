"""How much memory an image may ask for: what the machine has free, and what a registration takes for each voxel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from crossalign.errors import ImageError
from crossalign.images.image import Image

BYTES_PER_VOXEL = 36  # of a registration, at its peak: 29 to 34 as measured
FLOOR_BYTES = 1024**3
UNKNOWN_BYTES = 4 * 1024**3
CGROUP = Path("/sys/fs/cgroup")
# Of version 2 and 1: the limit, what is used, and the count of pages of files, which the system would give up.
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def memory_limit() -> int:
    """Return how many bytes an image may take: what the machine, or the process's container, has free."""
    free = available_bytes()
    return UNKNOWN_BYTES if free is None else max(FLOOR_BYTES, free)


def available_bytes() -> int | None:
    """Return how much memory this process may still take, or None where the system does not say."""
    found = (_machine_bytes(), *(_cgroup_bytes(*files) for files in CGROUP_FILES))
    return min((value for value in found if value is not None), default=None)


def check_bytes(needed: int, what: str, remedy: str, limit_bytes: int | None = None) -> None:
    """Raise ImageError where something needs more memory than the limit (None: than is free).

    `what` begins the error's text ("mr.nii: the method needs"), `remedy` ends it.
    """
    limit = memory_limit() if limit_bytes is None else limit_bytes
    if needed > limit:
        raise ImageError(f"{what} {_gib(needed)} of memory, over the limit of {_gib(limit)}: {remedy}")


def check_memory(size: Sequence[int], name: str, limit_bytes: int | None = None) -> None:
    """Raise ImageError where a registration of this many voxels would take more than the limit."""
    x, y, z = map(int, size)
    what, remedy = f"{name}: {tuple(size)} voxels need", "crop or resample it, or use a machine with more memory free"
    check_bytes(x * y * z * BYTES_PER_VOXEL, what, remedy, limit_bytes)


def check_working_bytes(images: Sequence[Image], bytes_per_voxel: int) -> None:
    """Raise ImageError where a step that takes so many bytes a voxel of all images would take more than is free."""
    needed, names = sum(image.voxels.numel() for image in images), " and ".join(image.name for image in images)
    remedy = "crop or resample them, give a fixed mask, or use another method"
    check_bytes(needed * bytes_per_voxel, f"{names}: beside the scans the method needs", remedy)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _machine_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _cgroup_bytes(limit_file: str, usage_file: str, counts_file: str) -> int | None:
    """Return what the limit of a container leaves."""
    try:
        limit, usage = (int((CGROUP / name).read_text("ascii")) for name in (limit_file, usage_file))
        counts = dict(line.split() for line in (CGROUP / counts_file).read_text("ascii").splitlines())
        return max(0, limit - usage + sum(int(counts.get(key, 0)) for key in ("inactive_file", "active_file")))
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return None
