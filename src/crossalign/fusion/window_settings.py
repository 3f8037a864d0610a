"""Settings of the windows of a fusion's inputs. Importing them is quick: the command line makes its options of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from crossalign.errors import SettingError
from crossalign.fields import check_choices


@dataclass(frozen=True)
class WindowSettings:
    """How the values of both inputs of a fusion become 0 to 1: a is the first, b the second."""

    window_a: tuple[float, float] | None = None
    """LOW,HIGH: the first image's values that become 0 and 1, in its own unit."""
    window_b: tuple[float, float] | None = None
    """LOW,HIGH of the second image. PET by default: 0 to the 99.9th percentile, in SUV to 6 or more."""
    modality_a: Literal["auto", "mr", "ct", "pet", "spect", "other"] = "auto"
    """What the first image is; auto: as its DICOM header or its unit says, else mr."""
    modality_b: Literal["auto", "mr", "ct", "pet", "spect", "other"] = "auto"
    """What the second image is; auto: as its DICOM header or its unit says, else pet."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("window_a", "window_b"):
            low, high = getattr(self, name) or (0.0, 1.0)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise SettingError(name, f"must be LOW,HIGH with LOW below HIGH, got {low:g},{high:g}")
