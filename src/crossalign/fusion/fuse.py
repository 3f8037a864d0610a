"""fuse: one pair, one method, one result."""

from __future__ import annotations

import time

import torch

from crossalign.errors import ImageError
from crossalign.fusion.checks import (
    check_overlap,
    check_usable,
    content_warnings,
    coverage_notes,
    input_warnings,
    scaling_notes,
)
from crossalign.fusion.memory import check_memory
from crossalign.fusion.method import FusionMethod
from crossalign.fusion.result import FusionResult
from crossalign.fusion.scaling import Scaling, find_scaling, find_uptake_scaling
from crossalign.geometry import Rigid
from crossalign.images import Image
from crossalign.images.slabs import slabs
from crossalign.types import Scan


def fuse(a: Image, b: Image, method: FusionMethod, a_to_b: Rigid | None = None, b_unit: str = "") -> FusionResult:
    """Fuse a structural scan a (MRI) and a functional one b (PET) into one volume in [0, 1] on a's grid.

    b is brought onto a's grid (trilinear) through `a_to_b`, which maps points of a to points of b; without it the two
    headers must agree. No uptake is 0 in b's field of view and beyond it, and so is padding of either. `b_unit` is kept
    with the scaling. Raises ImageError where one of them is constant or not finite, where less than a quarter of either
    falls into the other, where what they show does not overlap, and where there is too little memory.
    """
    check_usable(a, b)
    share = check_overlap(a, b, a_to_b)
    check_memory(a.grid, b.grid, method.name, method.needed_bytes(a.grid.shape))
    a_scaling, b_scaling = find_scaling(a), find_uptake_scaling(b, b_unit)
    scaled_a, scaled_b = _scaled(a, a_scaling), _scaled(b, b_scaling)
    if a_to_b is not None or not b.grid.agrees_with(a.grid):
        scaled_b = scaled_b.resampled(a.grid, a_to_b, fill=0.0)
    warnings = content_warnings(scaled_a, scaled_b, a_to_b, b.grid)
    began = time.perf_counter()
    voxels = method.fuse(scaled_a.voxels, scaled_b.voxels)
    seconds = time.perf_counter() - began
    return FusionResult(
        fused=Image(_checked(voxels, method.name), a.grid, "fused"),
        a=scaled_a,
        b=scaled_b,
        a_scaling=a_scaling,
        b_scaling=b_scaling,
        method=method.name,
        seconds=seconds,
        warnings=(*warnings, *input_warnings(a, a_scaling), *input_warnings(b, b_scaling)),
        settings=method.settings(),
        notes=(*coverage_notes(b, share), *scaling_notes(b, b_scaling)),
    )


def _scaled(image: Image, scaling: Scaling) -> Image:
    return Image(scaling.applied(image.voxels), image.grid, image.name)


def _checked(fused: Scan, name: str) -> Scan:
    if not all(bool(part.isfinite().all()) for part in slabs(fused)):
        raise ImageError(f"the method '{name}' made NaN or infinite values: check its weights, or use another method")
    made = fused.detach().to("cpu", torch.float32)
    low, high = made.aminmax()
    return made if float(low) >= 0 and float(high) <= 1 else made.clamp(0, 1)
