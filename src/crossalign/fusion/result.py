"""What a fusion hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crossalign.fusion.scaling import Scaling
from crossalign.images import Image


@dataclass(frozen=True, eq=False)
class FusionResult:
    """The fused volume in [0, 1] on a's grid, what was fused, and how it came about.

    `a` and `b` are the two inputs as the method saw them: on one grid, in [0, 1]; `a_scaling` and `b_scaling` bring
    them back to their own units. `settings` names everything that decided the outcome; `seconds` is the method's time.
    `notes` are worth knowing and no fault. Where b was registered first, `trusted` is what that registration thinks of
    itself (None: it cannot tell, or there was none) and `doubts` are its reasons against, each with the next thing to
    try.
    """

    fused: Image
    a: Image
    b: Image
    a_scaling: Scaling
    b_scaling: Scaling
    method: str
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trusted: bool | None = None
    doubts: tuple[str, ...] = ()
