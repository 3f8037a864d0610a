"""Settings of an overlay's colours. Importing them is quick: the command line makes its options from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossalign.errors import SettingError
from crossalign.fields import check_bounds, check_choices


@dataclass(frozen=True)
class OverlaySettings:
    """How a PET is coloured over an MR: a colour map, and the opacity as a function of the uptake."""

    colour_map: Literal["inferno", "magma", "plasma", "viridis", "cividis"] = "inferno"
    """Colours of the uptake, from 0 to the top of its window: one of matplotlib's perceptually uniform maps."""
    opacity: float = 0.8
    """Largest opacity of the colours: 0 shows the MR alone, 1 hides it where the uptake is high."""
    onset: float = 0.1
    """Fraction of the PET's window up to which the MR shows unchanged."""
    full: float = 0.5
    """Fraction of the PET's window from which on the opacity is the largest; from the onset to here it rises evenly."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_bounds(self, {"opacity": (0.0, 1.0), "onset": (0.0, 1.0), "full": (0.0, 1.0)})
        if not self.onset < self.full:
            raise SettingError("full", f"must be more than the onset, {self.onset:g}, got {self.full:g}")

    def points(self) -> tuple[tuple[float, float], ...]:
        """Return the opacity curve: (scaled uptake, opacity), straight lines between, from 0 to 1."""
        curve = ((0.0, 0.0), (self.onset, 0.0), (self.full, self.opacity), (1.0, self.opacity))
        return tuple(dict.fromkeys(curve))
