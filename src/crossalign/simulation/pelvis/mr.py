"""MR images of a pelvis: tissue contrast, slices, blur, coil shading, noise, field of view."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.simulation.ellipsoids import EllipsoidModel
from crossalign.simulation.pelvis.tissues import T2, draw_tissues
from crossalign.simulation.random_fields import (
    apply_separable,
    bernoulli,
    blur_matrices,
    normal,
    outer_product,
    slice_matrices,
    soft_box,
    uniform,
)
from crossalign.simulation.settings import MRSettings
from crossalign.simulation.tissues import Tissues, render_tissues, texture
from crossalign.types import Shape


@dataclass(frozen=True, eq=False)
class MRScan:
    """What was drawn for MR scans (b): widths in mm, the box that was imaged in the fixed frame."""

    tissues: Tissues
    texture: Tensor
    bias: Tensor
    noise: Tensor
    slice_mm: Tensor
    slice_phase: Tensor
    blur_mm: Tensor
    window: Tensor
    box_half_mm: Tensor
    box_center_mm: Tensor
    box_edge_mm: Tensor


def draw_mr(anatomy: EllipsoidModel, center_mm: Tensor, settings: MRSettings, generator: torch.Generator) -> MRScan:
    """Draw the scans of glands centred at `center_mm` (b, 3) of the fixed frame."""
    n = len(center_mm)
    jitter = uniform(settings.contrast_jitter, (n,), generator)
    randomised = bernoulli(settings.random_contrast_fraction, (n,), generator)
    tissues = draw_tissues(T2, anatomy, jitter, randomised, settings.zones, generator)
    half = torch.stack([uniform((40.0, 62.0), (n,), generator) for _ in range(3)], -1)
    edge = uniform((0.5, 8.0), (n,), generator)
    # The field of view keeps the gland: half its size, its offset and the soft edge all fit inside.
    shift = torch.stack([uniform((-8.0, 8.0), (n,), generator) for _ in range(3)], -1)
    half = torch.maximum(half, anatomy.half_axes_mm.amax(-1, keepdim=True) * 1.15 + shift.abs() + edge[:, None])
    return MRScan(
        tissues=tissues,
        texture=uniform(settings.texture, (n,), generator),
        bias=torch.randn(n, 9, generator=generator) * uniform(settings.bias, (n, 1), generator) * 0.5,
        noise=uniform(settings.noise, (n,), generator),
        slice_mm=uniform(settings.slice_mm, (n,), generator),
        slice_phase=torch.rand(n, generator=generator),
        blur_mm=uniform(settings.blur_mm, (n,), generator),
        window=uniform((0.4, 1.0), (n,), generator),
        box_half_mm=half if settings.crop else torch.full_like(half, 1e4),
        box_center_mm=center_mm + shift,
        box_edge_mm=edge,
    )


def render_mr(membership: Tensor, shape: Shape, spacing_mm: float, scan: MRScan, generator: torch.Generator) -> Tensor:
    """Turn memberships before clamping (b, k, n) on the grid into MR images (b, 1, z, y, x) in [0, 1].

    The grid is centred at the origin of the fixed frame. Slices are stacked along z, as most prostate T2 scans are.
    """
    image = render_tissues(membership, scan.tissues).view(-1, 1, *shape)
    image = image * texture(shape, scan.texture, generator)
    blur = [blur_matrices(size, scan.blur_mm / spacing_mm) for size in shape]
    slices = slice_matrices(shape[0], scan.slice_mm / spacing_mm, scan.slice_phase)
    image = apply_separable(image, slices @ blur[0], blur[1], blur[2])
    image = image * (_bias(shape, scan.bias) * scan.window[:, None, None, None, None])
    noise = normal(tuple(image.shape), generator)
    image = image.addcmul_(noise, scan.noise[:, None, None, None, None].expand_as(noise)).abs_()
    return (image * soft_box(shape, spacing_mm, scan.box_center_mm, scan.box_half_mm, scan.box_edge_mm)).clamp_(0, 1)


def _bias(shape: Shape, weights: Tensor) -> Tensor:
    """Make a smooth positive factor: the product of a parabola's exponential along each axis, (b, 1, z, y, x)."""
    factors = []
    for axis, size in enumerate(shape):
        at = torch.linspace(-1, 1, size, device=weights.device)
        basis = torch.stack((at, at.square() - 0.3, at * (at.square() - 0.6)))
        factors.append(torch.exp(weights[:, 3 * axis : 3 * axis + 3] @ basis))
    return outer_product(*factors)
