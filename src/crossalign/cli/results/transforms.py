"""What `transform convert`, `transform invert` and `transform compose` return."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TransformResult:
    """A linear transform that was written."""

    formats_read: tuple[str, ...]
    """Format of each file that was read."""
    format: str
    """Format that was written."""
    direction: str | None
    """Which points the output maps to which: fixed-to-moving or moving-to-fixed; null of compose."""
    matrix: tuple[tuple[float, ...], ...]
    """4 x 4 matrix of the output, LPS, mm, whatever its format's own convention."""
    is_rigid: bool
    """Whether it is a rotation and a translation alone; otherwise it is affine."""
