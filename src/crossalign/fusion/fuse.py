"""fuse: one pair, one method, one result."""

from __future__ import annotations

import time

import torch

from crossalign.errors import ImageError
from crossalign.fusion.method import FusionMethod
from crossalign.fusion.result import FusionResult
from crossalign.fusion.scaling import Scaling, find_scaling
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image
from crossalign.types import Scan

LEAST_OVERLAP = 0.25
LOW_OVERLAP = 0.75
MUCH_CLIPPED = 0.01
SMALLEST_AXIS = 8
NEAR_ZERO = 0.05
SAMPLE_POINTS = 30_000


def fuse(a: Image, b: Image, method: FusionMethod, a_to_b: Rigid | None = None, b_unit: str = "") -> FusionResult:
    """Fuse a structural scan a (MRI) and a functional one b (PET) into one volume in [0, 1] on a's grid.

    b is brought onto a's grid (trilinear) through `a_to_b`, which maps points of a to points of b; without it the two
    headers must agree. `b_unit` is kept with the scaling. Raises ImageError where one of them is constant or not
    finite, where less than a quarter of either falls into the other, and where what they show does not overlap.
    """
    for image in (a, b):
        _check_usable(image)
    share = _check_overlap(a, b, a_to_b)
    a_scaling, b_scaling = find_scaling(a), find_scaling(b, b_unit)
    scaled_a, scaled_b = _scaled(a, a_scaling), _scaled(b, b_scaling)
    if a_to_b is not None or not b.grid.agrees_with(a.grid):
        scaled_b = scaled_b.resampled(a.grid, a_to_b, fill=0.0)
    warnings = [*_overlap_warnings(b, share), *_content_warnings(scaled_a, scaled_b)]
    warnings += [*_clip_warnings(a, a_scaling), *_clip_warnings(b, b_scaling)]
    began = time.perf_counter()
    voxels = method.fuse(scaled_a.voxels, scaled_b.voxels)
    seconds = time.perf_counter() - began
    fused = Image(_checked(voxels, method.name), a.grid, "fused")
    how = (method.name, seconds, tuple(warnings), method.settings())
    return FusionResult(fused, scaled_a, scaled_b, a_scaling, b_scaling, *how)


def _scaled(image: Image, scaling: Scaling) -> Image:
    return Image(scaling.applied(image.voxels), image.grid, image.name)


def _check_usable(image: Image) -> None:
    if not bool(image.voxels.isfinite().all()):
        raise ImageError(f"{image.name}: holds NaN or infinite values: replace them before fusion")
    if float(image.voxels.min()) == float(image.voxels.max()):
        raise ImageError(f"{image.name}: every voxel is the same: a constant image cannot be fused")
    if min(image.grid.shape) < SMALLEST_AXIS:
        size = " x ".join(str(n) for n in image.grid.shape[::-1])
        raise ImageError(f"{image.name}: {size} voxels, expected {SMALLEST_AXIS} or more on each axis")


def _check_overlap(a: Image, b: Image, a_to_b: Rigid | None) -> float:
    """Return the share of a's grid that lies in b's; raises ImageError where one is hardly in the other."""
    forward = a_to_b or Rigid.identity()
    a_in_b, b_in_a = _share(a.grid, b.grid, forward), _share(b.grid, a.grid, forward.inverse())
    if max(a_in_b, b_in_a) < LEAST_OVERLAP:
        raise ImageError(
            f"{b.name} does not lie where {a.name} does (at most {max(a_in_b, b_in_a):.0%} of either grid is in the "
            "other): register them first (crossalign fuse --register)"
        )
    return a_in_b


def _share(inner: Grid, outer: Grid, inner_to_outer: Rigid) -> float:
    per_axis = round(SAMPLE_POINTS ** (1 / 3))
    axes = [torch.linspace(0, n - 1, min(n, per_axis), dtype=torch.float64) for n in inner.shape[::-1]]
    index = outer.to_voxel(inner_to_outer.apply(inner.to_physical(torch.cartesian_prod(*axes))))
    size = torch.tensor(outer.shape[::-1]).to(index)
    return float(((index >= -0.5) & (index < size - 0.5)).all(dim=-1).double().mean())


def _overlap_warnings(b: Image, share: float) -> tuple[str, ...]:
    if share >= LOW_OVERLAP:
        return ()
    return (f"{b.name} covers only {share:.0%} of the grid of the fused volume: it counts as 0 elsewhere",)


def _content_warnings(a: Image, b: Image) -> tuple[str, ...]:
    """Compare what the two show; raises ImageError where nothing of b lies on a's grid, or none of it on a's head."""
    inside_a, inside_b = a.voxels > NEAR_ZERO, b.voxels > NEAR_ZERO
    smaller = min(int(inside_a.sum()), int(inside_b.sum()))
    if smaller == 0:
        raise ImageError(f"{b.name}: nothing of it falls on the grid of {a.name}: register them first (--register)")
    share = int((inside_a & inside_b).sum()) / smaller
    if share < LEAST_OVERLAP:
        raise ImageError(
            f"only {share:.0%} of what {b.name} shows lies on what {a.name} shows: register them first (--register)"
        )
    if share < LOW_OVERLAP:
        return (f"only {share:.0%} of what {b.name} shows lies on what {a.name} shows: are the two registered?",)
    return ()


def _clip_warnings(image: Image, scaling: Scaling) -> tuple[str, ...]:
    if scaling.clipped_share <= MUCH_CLIPPED:
        return ()
    return (f"{image.name}: {scaling.clipped_share:.1%} of the voxels lie beyond the scaling and were clipped",)


def _checked(fused: Scan, name: str) -> Scan:
    if not bool(fused.isfinite().all()):
        raise ImageError(f"the method '{name}' made NaN or infinite values: check its weights, or use another method")
    return fused.detach().to("cpu", torch.float32).clamp(0, 1)
