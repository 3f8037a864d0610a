"""Any modality: its field of view (all, a box, a ball, or a cone as a probe's), its contrast and its physics."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.simulation.ellipsoids import EllipsoidModel
from crossalign.simulation.random_fields import (
    apply_separable,
    bernoulli,
    blur_matrices,
    from_control_points,
    normal,
    random_directions,
    slice_matrices,
    uniform,
)
from crossalign.simulation.settings import ShapeSettings
from crossalign.simulation.tissues import Tissues, render_tissues, texture
from crossalign.types import Shape

UNBOUNDED_MM = 1e4
BOX, BALL, CONE = range(3)


@dataclass(frozen=True, eq=False)
class FieldOfView:
    """Fields (b): the points inside a box, a ball and a cone that ends at spheres; those not drawn are endless."""

    center_mm: Tensor
    half_mm: Tensor
    radius_mm: Tensor
    is_cone: Tensor
    apex_mm: Tensor
    direction: Tensor
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
        angle = torch.acos(((beam @ self.direction[..., None])[..., 0] / depth).clamp(-1, 1))
        cone = torch.minimum(depth - self.near_mm[:, None], self.far_mm[:, None] - depth)
        cone = torch.minimum(cone, (self.angle_rad[:, None] - angle) * depth)
        cone = torch.where(self.is_cone[:, None], cone, torch.full_like(cone, UNBOUNDED_MM))
        return torch.minimum(torch.minimum(box, ball), cone)

    def fade(self, points_mm: Tensor) -> Tensor:
        """Make the factor at grid points (z, y, x, 3): 0 outside, linear to 1 over the edge, (b, 1, z, y, x)."""
        inside = self.inside_mm(points_mm.flatten(0, 2)) / self.edge_mm[:, None]
        return inside.clamp_(0, 1).view(-1, 1, *points_mm.shape[:3])


def draw_field(center_mm: Tensor, reach_mm: Tensor, settings: ShapeSettings, generator: torch.Generator) -> FieldOfView:
    """Draw fields of view that show most of a main shape at `center_mm` (b, 3) which reaches this far (b,)."""
    n = len(center_mm)
    kind = torch.randint(0, 3, (n,), generator=generator)
    kind = torch.where(bernoulli(settings.partial_fraction, (n,), generator), kind, torch.full_like(kind, -1))
    shift = uniform((-6, 6), (n, 3), generator)
    half = reach_mm[:, None] * uniform((1.0, 2.4), (n, 3), generator) + shift.abs()
    radius = reach_mm * uniform((1.0, 2.4), (n,), generator) + shift.norm(dim=-1)
    direction = random_directions((n,), generator)
    away = reach_mm * uniform((1.25, 3.0), (n,), generator)
    angle = torch.asin((reach_mm / away * uniform((0.85, 1.4), (n,), generator)).clamp(max=0.98))
    near = (away - reach_mm * uniform((0.9, 1.4), (n,), generator)).clamp(min=2.0)
    far = away + reach_mm * uniform((0.9, 3.0), (n,), generator)
    return FieldOfView(
        center_mm=center_mm + shift,
        half_mm=torch.where((kind == BOX)[:, None], half, torch.full_like(half, UNBOUNDED_MM)),
        radius_mm=torch.where(kind == BALL, radius, torch.full_like(radius, UNBOUNDED_MM)),
        is_cone=kind == CONE,
        apex_mm=center_mm - direction * away[:, None],
        direction=direction,
        angle_rad=angle,
        near_mm=near,
        far_mm=far,
        edge_mm=uniform(settings.edge_mm, (n,), generator),
    )


CURVE_POINTS, BIAS_POINTS = 9, 3


@dataclass(frozen=True, eq=False)
class Modality:
    """What was drawn for images (b): each ellipsoid's property, whether it is hidden (b, k), and the physics."""

    tissues: Tissues
    hidden: Tensor
    curve: Tensor
    grain: Tensor
    speckle: Tensor
    noise: Tensor
    bias: Tensor
    slice_axis: Tensor
    slice_mm: Tensor
    slice_phase: Tensor
    blur_mm: Tensor
    field: FieldOfView


def draw_properties(scene: EllipsoidModel, generator: torch.Generator) -> Tissues:
    """Draw a property in 0..1 for each ellipsoid and the background."""
    n, outer, inner = len(scene.coefficients), len(scene.outer_names), len(scene.inner_names)
    drawn = torch.rand(n, outer + inner + 2, generator=generator)
    # The main shape is never quite like its background, or there would be nothing to find.
    structure = (drawn[:, 0] + 0.25 + 0.5 * drawn[:, 1]) % 1
    return Tissues(drawn[:, 0], drawn[:, 2 : outer + 2], structure, torch.zeros(n), drawn[:, outer + 2 :])


def draw_modality(
    scene: EllipsoidModel,
    tissues: Tissues,
    center_mm: Tensor,
    reach_mm: Tensor,
    settings: ShapeSettings,
    generator: torch.Generator,
) -> Modality:
    """Draw modalities for main shapes centred at `center_mm` (b, 3) of the scan, which reach this far (b,)."""
    n, outer = len(center_mm), len(scene.outer_names)
    hidden = bernoulli(settings.hidden_fraction, tuple(scene.coefficients.shape[:2]), generator)
    hidden[:, outer] = False
    width = settings.speckle[1] - settings.speckle[0]
    return Modality(
        tissues=tissues,
        hidden=hidden,
        curve=draw_curves(n, settings.monotone_fraction, generator),
        grain=uniform(settings.grain, (n,), generator),
        speckle=settings.speckle[0] + width * torch.rand(n, generator=generator).square(),
        noise=uniform(settings.noise, (n,), generator),
        bias=torch.randn(n, 1, BIAS_POINTS**3, generator=generator) * uniform(settings.bias, (n, 1, 1), generator),
        slice_axis=torch.randint(0, 3, (n,), generator=generator),
        slice_mm=uniform(settings.slice_mm, (n,), generator),
        slice_phase=torch.rand(n, generator=generator),
        blur_mm=uniform(settings.blur_mm, (n,), generator),
        field=draw_field(center_mm, reach_mm, settings, generator),
    )


def draw_curves(count: int, monotone_fraction: float, generator: torch.Generator) -> Tensor:
    """Draw maps from property to intensity, each rising, falling or neither.

    They are values in 0..1 at even points (b, CURVE_POINTS); all reach from a random low to a random high value.
    """
    # Squared steps: some maps are nearly flat over much of their range, as a window's ends are.
    rising = torch.rand(count, CURVE_POINTS, generator=generator).square().cumsum(-1)
    falling = bernoulli(0.5, (count, 1), generator)
    monotone = torch.where(falling, rising.flip(-1), rising)
    anything = torch.rand(count, CURVE_POINTS, generator=generator)
    drawn = torch.where(bernoulli(monotone_fraction, (count, 1), generator), monotone, anything)
    least, most = drawn.amin(-1, keepdim=True), drawn.amax(-1, keepdim=True)
    low, high = uniform((0.02, 0.3), (count, 1), generator), uniform((0.5, 1.0), (count, 1), generator)
    return low + (drawn - least) / (most - least) * (high - low)


def apply_curves(values: Tensor, curve: Tensor) -> Tensor:
    """Map values (b, n), clamped to 0..1, linearly between the points of each curve (b, CURVE_POINTS)."""
    at = values.clamp(0, 1) * (curve.shape[1] - 1)
    left = at.long().clamp(max=curve.shape[1] - 2)
    return torch.lerp(curve.gather(1, left), curve.gather(1, left + 1), at - left)


def render_modality(
    membership: Tensor,
    waves: Tensor,
    points_mm: Tensor,
    spacing_mm: float,
    modality: Modality,
    generator: torch.Generator,
) -> Tensor:
    """Turn memberships before clamping (b, k, n) and the property's waves (b, n) into images (b, 1, z, y, x) in [0, 1].

    `points_mm` (z, y, x, 3) is the grid. Exactly 0 outside the field of modality. Changes `membership`.
    """
    z, y, x = points_mm.shape[:3]
    shape = (z, y, x)
    membership -= 1e3 * modality.hidden[:, :, None]
    image = apply_curves(render_tissues(membership, modality.tissues) + waves, modality.curve).view(-1, 1, *shape)
    speckle = normal(tuple(image.shape), generator).mul_(_wide(modality.speckle)).add_(1).clamp_(min=0)
    image = image * texture(shape, modality.grain, generator) * speckle
    image = apply_separable(image, *_optics(shape, spacing_mm, modality))
    image = image * from_control_points(modality.bias, shape).clamp(-1.2, 1.2).exp()
    image = image.addcmul_(normal(tuple(image.shape), generator), _wide(modality.noise).expand_as(image)).abs_()
    return (image * modality.field.fade(points_mm)).clamp_(0, 1)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None, None]


def _optics(shape: Shape, spacing_mm: float, modality: Modality) -> list[Tensor]:
    """Make the blur along each axis, and slices along the one that was drawn."""
    matrices = []
    for axis, size in enumerate(shape):
        blur = blur_matrices(size, modality.blur_mm / spacing_mm)
        slices = slice_matrices(size, modality.slice_mm / spacing_mm, modality.slice_phase) @ blur
        matrices.append(torch.where((modality.slice_axis == axis)[:, None, None], slices, blur))
    return matrices
