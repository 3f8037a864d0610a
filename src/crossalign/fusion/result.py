"""fuse: one pair, one method, one result."""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from crossalign.arguments import checked
from crossalign.errors import ImageError
from crossalign.fusion.checks import (
    check_overlap,
    check_usable,
    content_warnings,
    coverage_notes,
    input_warnings,
    scaling_notes,
)
from crossalign.fusion.scaling import Scaling
from crossalign.fusion.window_settings import WindowSettings
from crossalign.fusion.windows import scaling_of
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image
from crossalign.images.conversion import ImageLike, as_image
from crossalign.images.image import slabs
from crossalign.images.memory import check_bytes
from crossalign.types import Scan, Shape

FLOAT_BYTES = 4
PLAIN_BYTES = 24  # a voxel: the result and a few volumes in between


class FusionMethod(ABC):
    """A way to fuse: a small dataclass whose fields are its settings. One class, and one line in `methods.py`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, as the command line spells it."""

    def settings(self) -> dict[str, str]:
        """Everything that decides the outcome, as text, for reports: the fields."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type] # a dataclass
        return {name: ", ".join(map(str, v)) if isinstance(v, tuple) else str(v) for name, v in values.items()}

    @abstractmethod
    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Fuse a, the structural scan (MRI), with b, the functional one (PET): one grid, float32 in [0, 1], CPU.

        The result is of the same kind. The same pair gives the same result; nothing is stored between two calls.
        """

    def for_pair(self, _a: Scan, _b: Scan) -> FusionMethod:
        """Return the method with what it chooses for this pair, given as to `fuse`; most methods choose nothing."""
        return self

    def notes(self) -> tuple[str, ...]:
        """Return what is worth knowing of what was chosen for a pair."""
        return ()

    def needed_bytes(self, shape: Shape) -> int:
        """Return about how much memory `fuse` takes at its peak, its result included, beside inputs of this shape."""
        return PLAIN_BYTES * math.prod(shape)


@dataclass(frozen=True, eq=False)
class FusionResult:
    """The fused volume in [0, 1] on a's grid, what was fused, and how it came about.

    `a` and `b` are the two inputs of the method: on one grid, in [0, 1]; `a_scaling` and `b_scaling` map them back to
    their own units. `settings` names everything that decided the outcome; `seconds` is the method's time. `notes` are
    worth knowing and no fault. Where b was registered first, `trusted` is the verdict of that registration (None: it
    has none, or there was no registration) and `reasons` say why not to trust it, each with what to try next.
    """

    fused: Image
    a: Image
    b: Image
    a_scaling: Scaling
    b_scaling: Scaling
    method: str
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trusted: bool | None = None
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values, as the JSON file beside a fused volume holds it."""
        from crossalign.fusion.fused_files import fusion_record

        return fusion_record(self)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the volume (.nii.gz, .nii, .nrrd, .mha) with its .json beside it, or the record alone (.json).

        Raises OutputError.
        """
        from crossalign.fusion.fused_files import save_fusion

        save_fusion(self, path, overwrite)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a small table."""
        from crossalign.fusion.fused_files import fusion_html

        return fusion_html(self)


def needed_bytes(a: Grid, b: Grid, method_bytes: int) -> int:
    """Return about how much `fuse` takes at its peak beside the two scans that it is given.

    `method_bytes` is what the method takes beside both inputs on a's grid.
    """
    of_a, of_b = FLOAT_BYTES * math.prod(a.shape), FLOAT_BYTES * math.prod(b.shape)
    scaling = of_a + 3 * of_b  # a scaled, and what b's percentiles and its scaling take
    resampling = 2 * of_a + of_b  # a scaled; b scaled, on its own grid and on a's
    return max(scaling, resampling, 2 * of_a + method_bytes)


@checked("method", "a_to_b", "b_unit", "windows")
def fuse(
    a: ImageLike,
    b: ImageLike,
    method: FusionMethod,
    a_to_b: Rigid | None = None,
    b_unit: str = "",
    windows: WindowSettings | None = None,
) -> FusionResult:
    """Fuse a structural scan a (MRI) and a functional one b (PET) into one volume in [0, 1] on a's grid.

    Both are crossalign's images, paths, arrays with their geometry (`Voxels`), or images of SimpleITK, nibabel, MONAI
    or TorchIO (see `as_image`).
    b is resampled onto a's grid (trilinear) through `a_to_b`, which maps points of a to points of b; without it the two
    headers must agree. No uptake is 0 in b's field of view and beyond it, and so is padding of either. `windows` say
    which values become 0 and 1, by default as readers of each modality choose them; `b_unit` is the unit of b's values
    where its file does not say it. Raises TypeError for what is no image, ImageError where one of them is constant or
    not finite, where less than a quarter of either lies in the other, where what they show does not overlap, and where
    there is too little memory.
    """
    a, b = as_image(a, "MRI"), as_image(b, "PET")
    check_usable(a, b)
    covered = check_overlap(a, b, a_to_b)
    _check_memory(a.grid, b.grid, method)
    windows = windows or WindowSettings()
    (a_scaling, a_notes), (b_scaling, b_notes) = scaling_of(windows, a, "a"), scaling_of(windows, b, "b", b_unit)
    scaled_a = Image(a_scaling.apply(a.voxels), a.grid, a.name)
    scaled_b = Image(b_scaling.apply(b.voxels), b.grid, b.name)
    if a_to_b is not None or not b.grid.agrees_with(a.grid):
        scaled_b = scaled_b.resampled(a.grid, a_to_b, fill=0.0)
    warnings = content_warnings(scaled_a, scaled_b, a_to_b, b.grid)
    began = time.perf_counter()
    method = method.for_pair(scaled_a.voxels, scaled_b.voxels)
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
        notes=(
            *a_notes,
            *b_notes,
            *coverage_notes(b, covered),
            *scaling_notes(a, a_scaling),
            *scaling_notes(b, b_scaling),
            *method.notes(),
        ),
    )


def _check_memory(a: Grid, b: Grid, method: FusionMethod) -> None:
    """Raise ImageError where fusing scans on these grids would take more memory than is free."""
    size = " x ".join(str(n) for n in a.shape[::-1])
    remedy = "crop or resample the MRI (the result lies on its grid), or use --method average, which takes least"
    needed = needed_bytes(a, b, method.needed_bytes(a.shape))
    check_bytes(needed, f"fusing {size} voxels by '{method.name}' takes", remedy)


def _checked(fused: Scan, name: str) -> Scan:
    if not all(bool(part.isfinite().all()) for part in slabs(fused)):
        raise ImageError(f"the method '{name}' made NaN or infinite values: check its weights, or use another method")
    fused = fused.detach().to("cpu", torch.float32)
    low, high = fused.aminmax()
    return fused if float(low) >= 0 and float(high) <= 1 else fused.clamp(0, 1)
