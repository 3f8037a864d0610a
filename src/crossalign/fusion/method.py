"""What a way to fuse is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from crossalign.types import Scan, Shape

PLAIN_BYTES = 24  # the result and a few volumes in between


class FusionMethod(ABC):
    """A way to fuse: a small object that carries its settings. One file, and one line in `named.py`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, as the command line spells it."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Everything that decides the outcome, as text, for reports."""

    @abstractmethod
    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Fuse a, the structural scan (MRI), with b, the functional one (PET): one grid, float32 in [0, 1], CPU.

        The result is of the same kind. The same pair gives the same result; nothing is kept between two calls.
        """

    def needed_bytes(self, shape: Shape) -> int:
        """Return about how much memory `fuse` takes at its peak, its result included, beside inputs of this shape."""
        return PLAIN_BYTES * math.prod(shape)
