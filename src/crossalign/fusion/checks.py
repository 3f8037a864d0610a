"""Checks of a pair before it is fused: what cannot be fused is an error, what is odd a warning."""

from __future__ import annotations

import torch
from torch import Tensor

from crossalign.errors import ImageError
from crossalign.fusion.scaling import GIVEN, Scaling
from crossalign.geometry import Grid, Rigid, inside_fraction
from crossalign.images import Image
from crossalign.images.image import count_where, slabs
from crossalign.images.intensity import looks_like_labels

LEAST_OVERLAP, LOW_OVERLAP, FULL_OVERLAP = 0.25, 0.75, 0.99
MUCH_CLIPPED = 0.01
CLIPPED_NOISE = 0.1  # of the scale: values less far below it are noise about 0
SMALLEST_AXIS = 8
UPTAKE = ("pet", "spect")  # modalities in which 0 means no uptake
NEAR_ZERO = 0.05
SAME = 1e-6  # of the variance, left unexplained
SAMPLES_PER_AXIS = 31


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
    """Return the fraction of a's grid that lies in b's; raises ImageError where neither has a quarter in the other."""
    forward = Rigid.identity() if a_to_b is None else a_to_b
    a_in_b = inside_fraction(forward.apply(_sampled_points(a.grid)), b.grid)
    b_in_a = inside_fraction(forward.inverse().apply(_sampled_points(b.grid)), a.grid)
    if max(a_in_b, b_in_a) < LEAST_OVERLAP:
        raise ImageError(
            f"{b.name} does not lie where {a.name} does (at most {max(a_in_b, b_in_a):.0%} of either grid is in the "
            "other): register them first (crossalign fuse --register)"
        )
    return a_in_b


def coverage_notes(b: Image, covered: float) -> tuple[str, ...]:
    """Say how much of the result b covers; a small field of view is no fault."""
    if covered >= FULL_OVERLAP:
        return ()
    return (f"{b.name} covers {covered:.1%} of the grid of the fused volume and counts as 0 elsewhere",)


def scaling_notes(image: Image, scaling: Scaling) -> tuple[str, ...]:
    """Say how many voxels saturated, and where another value than 0 counts as no uptake."""
    notes = []
    if scaling.saturated:
        unit = f" {scaling.unit}" if scaling.unit else ""
        notes.append(
            f"{image.name}: {scaling.saturated} voxels ({scaling.saturated_fraction:.2%}) lie above "
            f"{scaling.high:.4g}{unit} and are saturated"
        )
    if scaling.modality in UPTAKE and scaling.low != 0:
        why = "" if scaling.source == GIVEN else ", since its background does not lie at 0"
        notes.append(f"{image.name}: {scaling.low:.4g} is taken for no uptake{why}")
    return tuple(notes)


def content_warnings(a: Image, b: Image, a_to_b: Rigid | None, b_grid: Grid) -> tuple[str, ...]:
    """Compare what the two show, both scaled and on a's grid; `b_grid` is b's own.

    Raises ImageError where nothing of b lies on a's grid, or hardly any of it on what a shows.
    """
    counts = [count_where(image.voxels, lambda part: part > NEAR_ZERO) for image in (a, b)]
    smaller = min(counts)
    if smaller == 0:
        raise ImageError(f"{b.name}: nothing of it falls on the grid of {a.name}: register them first (--register)")
    pairs = zip(slabs(a.voxels), slabs(b.voxels), strict=True)
    common = sum(int(((of_a > NEAR_ZERO) & (of_b > NEAR_ZERO)).sum()) for of_a, of_b in pairs) / smaller
    overlap = f"only {common:.0%} of what {b.name} shows lies on what {a.name} shows"
    if common < LEAST_OVERLAP:
        raise ImageError(f"{overlap}: register them first (--register)")
    warnings = [] if common >= LOW_OVERLAP else [f"{overlap}: are the two registered?"]
    return (*warnings, *_flat_warnings(a, b, a_to_b, b_grid), *_copy_warnings(a, b))


def input_warnings(image: Image, scaling: Scaling) -> tuple[str, ...]:
    """Say what is odd about one input: it looks like a segmentation, or much of it is clipped by the scaling."""
    warnings = []
    if looks_like_labels(image.voxels):
        warnings.append(
            f"{image.name}: holds whole numbers in plateaus, as a segmentation does: fuse the scan, not its label map"
        )
    below, above = _clipped(image.voxels, scaling)
    if below + above > MUCH_CLIPPED and scaling.source != GIVEN:
        where = f"below {scaling.low:.4g}" if below > above else f"above {scaling.high:.4g}"
        warnings.append(f"{image.name}: {below + above:.1%} of the voxels were clipped, most of them {where}")
    return tuple(warnings)


def _sampled_axes(grid: Grid) -> list[Tensor]:
    """Return some voxel indices along x, y and z, spread over each axis."""
    axes = [torch.linspace(0, n - 1, min(n, SAMPLES_PER_AXIS), dtype=torch.float64) for n in grid.shape[::-1]]
    return [axis.round().long() for axis in axes]


def _sampled_points(grid: Grid) -> Tensor:
    """Return the points (n, 3), mm, of all combinations of `_sampled_axes`, x slowest."""
    return grid.to_physical(torch.cartesian_prod(*(axis.double() for axis in _sampled_axes(grid))))


def _flat_warnings(a: Image, b: Image, a_to_b: Rigid | None, b_grid: Grid) -> tuple[str, ...]:
    """Warn of an image that has one value wherever both lie."""
    points = _sampled_points(a.grid)
    in_both = b_grid.contains(points if a_to_b is None else a_to_b.apply(points))
    x, y, z = _sampled_axes(a.grid)
    warnings = []
    for image in (a, b):
        values = image.voxels[z][:, y][:, :, x].permute(2, 1, 0).flatten()[in_both]
        if len(values) and float(values.min()) == float(values.max()):
            warnings.append(f"{image.name}: has one value where both images lie: is it the right file?")
    return tuple(warnings)


def _copy_warnings(a: Image, b: Image) -> tuple[str, ...]:
    """Warn where one is the other but for its scale: where neither is 0 or saturated, they correlate fully."""
    count, sums, products = 0, torch.zeros(2, dtype=torch.float64), torch.zeros((2, 2), dtype=torch.float64)
    for of_a, of_b in zip(slabs(a.voxels), slabs(b.voxels), strict=True):
        inside = (of_a > 0) & (of_a < 1) & (of_b > 0) & (of_b < 1)
        both = torch.stack((of_a[inside], of_b[inside])).double()
        count, sums, products = count + both.shape[1], sums + both.sum(1), products + both @ both.T
    covariance = products - sums[:, None] * sums / max(count, 1)
    product = float(covariance[0, 0] * covariance[1, 1])
    if not product > 0 or float(covariance[0, 1]) ** 2 < (1 - SAME) * product:
        return ()
    return (f"{b.name} shows the same as {a.name}: name the MRI, and then the PET",)


def _clipped(voxels: Tensor, scaling: Scaling) -> tuple[float, float]:
    """Return the fractions of voxels below and above the scaling, without padding and noise about its low end."""
    low = scaling.low - CLIPPED_NOISE * (scaling.high - scaling.low)
    below = count_where(voxels, lambda part: part < low)
    above = count_where(voxels, lambda part: part > scaling.high)
    if (padding := scaling.padding) is not None and not low <= padding <= scaling.high:
        empty = count_where(voxels, lambda part: part.eq(padding))
        below -= empty if padding < low else 0
        above -= empty if padding > scaling.high else 0
    return below / voxels.numel(), max(above, 0) / voxels.numel()
