"""What a pair is looked at for before it is fused: what cannot be fused, and what the user should be told."""

from __future__ import annotations

import torch
from torch import Tensor

from crossalign.errors import ImageError
from crossalign.fusion.scaling import Scaling
from crossalign.geometry import Grid, Rigid, inside_fraction
from crossalign.images import Image
from crossalign.images.image import count_where, slabs
from crossalign.images.intensity import looks_like_labels

LEAST_OVERLAP = 0.25
LOW_OVERLAP = 0.75
WHOLE = 0.99
MUCH_CLIPPED = 0.01
CLIPPED_NOISE = 0.1  # of the scale: what lies less far below it is noise about 0
SMALLEST_AXIS = 8
NEAR_ZERO = 0.05
SAME = 1e-3
SAMPLE_POINTS = 30_000


def check_usable(a: Image, b: Image) -> None:
    """Raise ImageError where one of them is not finite or constant, or where the result's grid is too thin."""
    for image in (a, b):
        if not all(bool(part.isfinite().all()) for part in slabs(image.voxels)):
            raise ImageError(f"{image.name}: holds NaN or infinite values: replace them before fusion")
        if float(image.voxels.min()) == float(image.voxels.max()):
            raise ImageError(f"{image.name}: every voxel is the same: a constant image cannot be fused")
    if min(a.grid.shape) < SMALLEST_AXIS:
        size = " x ".join(str(n) for n in a.grid.shape[::-1])
        raise ImageError(
            f"{a.name}: {size} voxels, expected {SMALLEST_AXIS} or more on each axis, since the result lies on its "
            "grid: resample it to thinner slices"
        )


def check_overlap(a: Image, b: Image, a_to_b: Rigid | None) -> float:
    """Return the share of a's grid that lies in b's; raises ImageError where neither has a quarter in the other."""
    forward = Rigid.identity() if a_to_b is None else a_to_b
    a_in_b, b_in_a = _share(a.grid, b.grid, forward), _share(b.grid, a.grid, forward.inverse())
    if max(a_in_b, b_in_a) < LEAST_OVERLAP:
        raise ImageError(
            f"{b.name} does not lie where {a.name} does (at most {max(a_in_b, b_in_a):.0%} of either grid is in the "
            "other): register them first (crossalign fuse --register)"
        )
    return a_in_b


def coverage_notes(b: Image, share: float) -> tuple[str, ...]:
    """Say how much of the result has something of b; a small field of view is no fault."""
    if share >= WHOLE:
        return ()
    return (f"{b.name} covers {share:.1%} of the grid of the fused volume and counts as 0 elsewhere",)


def scaling_notes(b: Image, scaling: Scaling) -> tuple[str, ...]:
    """Say where another value than 0 was taken for no uptake."""
    if scaling.low == 0:
        return ()
    return (f"{b.name}: {scaling.low:.4g} is taken for no uptake, since its background does not lie at 0",)


def content_warnings(a: Image, b: Image, a_to_b: Rigid | None, b_grid: Grid) -> tuple[str, ...]:
    """Compare what the two show, both scaled and on a's grid; `b_grid` is that which b came from.

    Raises ImageError where nothing of b lies on a's grid, or hardly any of it on what a shows.
    """
    counts = [count_where(image.voxels, lambda part: part > NEAR_ZERO) for image in (a, b)]
    smaller = min(counts)
    if smaller == 0:
        raise ImageError(f"{b.name}: nothing of it falls on the grid of {a.name}: register them first (--register)")
    pairs = zip(slabs(a.voxels), slabs(b.voxels), strict=True)
    share = sum(int(((of_a > NEAR_ZERO) & (of_b > NEAR_ZERO)).sum()) for of_a, of_b in pairs) / smaller
    if share < LEAST_OVERLAP:
        raise ImageError(
            f"only {share:.0%} of what {b.name} shows lies on what {a.name} shows: register them first (--register)"
        )
    warnings = [] if share >= LOW_OVERLAP else [_apart(a, b, share)]
    return (*warnings, *_flat_warnings(a, b, a_to_b, b_grid), *_copy_warnings(a, b))


def input_warnings(image: Image, scaling: Scaling) -> tuple[str, ...]:
    """Say what is odd about one input: it looks like a segmentation, or much of it lies beyond the scaling."""
    warnings = []
    if looks_like_labels(image.voxels):
        warnings.append(
            f"{image.name}: holds whole numbers in plateaus, as a segmentation does: fuse the scan, not its label map"
        )
    below, above = _beyond(image.voxels, scaling)
    if below + above > MUCH_CLIPPED:
        where = f"below {scaling.low:.4g}" if below > above else f"above {scaling.high:.4g}"
        warnings.append(f"{image.name}: {below + above:.1%} of the voxels were clipped, most of them {where}")
    return tuple(warnings)


def _share(inner: Grid, outer: Grid, inner_to_outer: Rigid) -> float:
    points = inner.to_physical(torch.cartesian_prod(*[axis.double() for axis in _lattice(inner)]))
    return inside_fraction(inner_to_outer.apply(points), outer)


def _lattice(grid: Grid) -> list[Tensor]:
    """Return voxel indices along x, y and z, about 30 on each axis."""
    per_axis = round(SAMPLE_POINTS ** (1 / 3))
    return [torch.linspace(0, n - 1, min(n, per_axis), dtype=torch.float64).round().long() for n in grid.shape[::-1]]


def _flat_warnings(a: Image, b: Image, a_to_b: Rigid | None, b_grid: Grid) -> tuple[str, ...]:
    """Warn of an image that has one value wherever both lie."""
    x, y, z = _lattice(a.grid)
    points = a.grid.to_physical(torch.cartesian_prod(x.double(), y.double(), z.double()))
    both = b_grid.contains((Rigid.identity() if a_to_b is None else a_to_b).apply(points))
    told = []
    for image in (a, b):
        seen = image.voxels[z][:, y][:, :, x].permute(2, 1, 0).flatten()[both]
        if len(seen) and float(seen.min()) == float(seen.max()):
            told.append(f"{image.name}: has one value where both images lie: is it the right file?")
    return tuple(told)


def _copy_warnings(a: Image, b: Image) -> tuple[str, ...]:
    if any(float((of_a - of_b).abs().max()) > SAME for of_a, of_b in zip(a.voxels, b.voxels, strict=True)):
        return ()
    return (f"{b.name} shows the same as {a.name}: name the MRI, and then the PET",)


def _apart(a: Image, b: Image, share: float) -> str:
    return f"only {share:.0%} of what {b.name} shows lies on what {a.name} shows: are the two registered?"


def _beyond(voxels: Tensor, scaling: Scaling) -> tuple[float, float]:
    """Return the shares of voxels below and above the scaling, noise about its low end and padding left out."""
    low = scaling.low - CLIPPED_NOISE * (scaling.high - scaling.low)
    below = count_where(voxels, lambda part: part < low)
    above = count_where(voxels, lambda part: part > scaling.high)
    if (padding := scaling.padding) is not None and not low <= padding <= scaling.high:
        empty = count_where(voxels, lambda part: part.eq(padding))
        below -= empty if padding < low else 0
        above -= empty if padding > scaling.high else 0
    return below / voxels.numel(), max(above, 0) / voxels.numel()
