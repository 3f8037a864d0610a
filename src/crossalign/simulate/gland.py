"""The gland's own shape: a barrel that narrows to the apex, hollowed from behind, and what all the pelvis shares."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.simulate.deformation import Shape, Waves, draw_waves, hollowed
from crossalign.simulate.draws import uniform
from crossalign.simulate.settings import AnatomySettings

EDGE_MM = 0.7
NARROWEST = 0.12


@dataclass(frozen=True, eq=False)
class GlandShape:
    """Glands (b): half axes (b, 3), mm, narrowing to the apex along x and y (b, 2), barrel, hollow and lean (b,).

    The ranges were set by fits to 112 outlined glands (docs/simulation.md).
    """

    half_axes_mm: Tensor
    taper: Tensor
    barrel: Tensor
    hollow: Tensor
    lean: Tensor
    waves: Waves

    def apply(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the patient to the frame in which bodies are ellipsoids: they lean, and waves."""
        x, y, z = points_mm.unbind(-1)
        _, hy, hz = self.half_axes_mm[:, :, None].unbind(1)
        leaning = y + self.lean[:, None] * z * (hy / hz)
        return torch.stack((x, leaning, z), dim=-1) + self.waves.at(points_mm)

    def radius(self, points_mm: Tensor) -> Tensor:
        """Return (b, n) below 1 inside the gland, at points (b, 3, n) of the frame in which bodies are ellipsoids."""
        u, v, w = (points_mm / self.half_axes_mm[:, :, None]).unbind(1)
        height = 1.5 * torch.tanh(w / 1.5)
        barrel = 1 - self.barrel[:, None] * height.square()
        narrow_x, narrow_y = ((barrel + t[:, None] * height).clamp_(min=NARROWEST) for t in self.taper.unbind(1))
        v_new = v / narrow_y + self.hollow[:, None] * hollowed(u, v)
        return (u / narrow_x).square_() + v_new.square_() + w.square().pow_(5)


def gland_level(shape: GlandShape | Shape, points_mm: Tensor) -> Tensor:
    """Return memberships before clamping (b, n) at points (b, 3, n), as `memberships` does for ellipsoids."""
    steepness = shape.half_axes_mm.amin(-1, keepdim=True) / (4 * EDGE_MM)
    return 0.5 + steepness * (1 - shape.radius(points_mm))


def draw_gland_shape(half_axes_mm: Tensor, settings: AnatomySettings, generator: torch.Generator) -> GlandShape:
    """Draw the shapes of glands with these half axes (b, 3), mm."""
    count = len(half_axes_mm)
    waves = draw_waves(count, settings.asymmetry_mm, (32.0, 80.0), generator)
    taper = torch.stack([uniform(bounds, (count,), generator) for bounds in (settings.taper_x, settings.taper_y)], -1)
    barrel, back, lean = (
        uniform(bounds, (count,), generator) for bounds in (settings.barrel, settings.hollow, settings.lean)
    )
    return GlandShape(half_axes_mm, taper, barrel, back, lean, waves)
