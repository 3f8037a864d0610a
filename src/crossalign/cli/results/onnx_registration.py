"""What `register-onnx` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RegisterOnnxResult:
    """A registration by exported networks."""

    model: str
    """Name of the model."""
    fixed_to_moving: list[list[float]]
    """4 x 4 matrix that maps fixed points (x, y, z, 1) to moving points, LPS, mm."""
    initial: list[list[float]]
    """The matrix that it began with."""
    expected_sre_mm: float | None
    """SRE to expect, if the scans are what the model was made for; null where the model has no calibration."""
    bound: Mapping[str, float] | None
    """`sre_mm`, under which the true SRE then lies with `probability`."""
    trusted: bool | None
    """false where something speaks against the answer, otherwise null: it is never true (see `unchecked`)."""
    reasons: list[str]
    """Why the answer is not to be trusted, each with what to try next."""
    unchecked: str
    """What `register` checks and this command does not."""
    assumed: list[str]
    """What was assumed beforehand."""
    evidence: Mapping[str, float | None]
    """Numbers, by name, that the expected SRE is made of."""
    seconds: float
    """Seconds of the registration, without opening files."""
