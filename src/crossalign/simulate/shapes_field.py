"""What part of a scene a view shows: all of it, a box, a ball, or a cone as a probe's."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.simulate.draws import chance, uniform
from crossalign.simulate.shapes_settings import ShapeSettings

FAR_MM = 1e4
BOX, BALL, CONE = range(3)


@dataclass(frozen=True, eq=False)
class FieldOfView:
    """Fields (b): the points inside a box, a ball and a cone that ends at spheres; those not drawn are endless."""

    center_mm: Tensor
    half_mm: Tensor
    radius_mm: Tensor
    coned: Tensor
    apex_mm: Tensor
    way: Tensor
    angle_rad: Tensor
    near_mm: Tensor
    far_mm: Tensor
    edge_mm: Tensor

    def inside_mm(self, points_mm: Tensor) -> Tensor:
        """Return how deep points (n, 3) lie in each field, (b, n), mm; negative outside."""
        offset = points_mm - self.center_mm[:, None]
        box = (self.half_mm[:, None] - offset.abs()).amin(-1)
        ball = self.radius_mm[:, None] - offset.norm(dim=-1)
        beam = points_mm - self.apex_mm[:, None]
        depth = beam.norm(dim=-1).clamp(min=1e-3)
        angle = torch.acos(((beam @ self.way[..., None])[..., 0] / depth).clamp(-1, 1))
        cone = torch.minimum(depth - self.near_mm[:, None], self.far_mm[:, None] - depth)
        cone = torch.minimum(cone, (self.angle_rad[:, None] - angle) * depth)
        cone = torch.where(self.coned[:, None], cone, torch.full_like(cone, FAR_MM))
        return torch.minimum(torch.minimum(box, ball), cone)

    def fade(self, points_mm: Tensor) -> Tensor:
        """Make the factor on a lattice (z, y, x, 3): exactly 0 outside, linear to 1 over the edge, (b, 1, z, y, x)."""
        inside = self.inside_mm(points_mm.flatten(0, 2)) / self.edge_mm[:, None]
        return inside.clamp_(0, 1).view(-1, 1, *points_mm.shape[:3])


def draw_field(center_mm: Tensor, reach_mm: Tensor, settings: ShapeSettings, generator: torch.Generator) -> FieldOfView:
    """Draw fields of view that show most of a main body at `center_mm` (b, 3) which reaches this far (b,)."""
    n = len(center_mm)
    kind = torch.randint(0, 3, (n,), generator=generator)
    kind = torch.where(chance(settings.partial_share, (n,), generator), kind, torch.full_like(kind, -1))
    shift = uniform((-6, 6), (n, 3), generator)
    half = reach_mm[:, None] * uniform((1.0, 2.4), (n, 3), generator) + shift.abs()
    radius = reach_mm * uniform((1.0, 2.4), (n,), generator) + shift.norm(dim=-1)
    way = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    away = reach_mm * uniform((1.25, 3.0), (n,), generator)
    wide = torch.asin((reach_mm / away * uniform((0.85, 1.4), (n,), generator)).clamp(max=0.98))
    near = (away - reach_mm * uniform((0.9, 1.4), (n,), generator)).clamp(min=2.0)
    far = away + reach_mm * uniform((0.9, 3.0), (n,), generator)
    return FieldOfView(
        center_mm=center_mm + shift,
        half_mm=torch.where((kind == BOX)[:, None], half, torch.full_like(half, FAR_MM)),
        radius_mm=torch.where(kind == BALL, radius, torch.full_like(radius, FAR_MM)),
        coned=kind == CONE,
        apex_mm=center_mm - way * away[:, None],
        way=way,
        angle_rad=wide,
        near_mm=near,
        far_mm=far,
        edge_mm=uniform(settings.edge_mm, (n,), generator),
    )
