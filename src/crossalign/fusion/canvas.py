"""The published input: the head in the middle of a cube of 128 voxels a side."""

import torch.nn.functional as F

from crossalign.errors import ImageError
from crossalign.fusion.scaling import find_scaling, find_uptake_scaling
from crossalign.geometry import Grid
from crossalign.images import Image
from crossalign.types import Vector

CANVAS_VOXELS = 128
CANVAS_MM = 224.0  # the paper pads to 224 voxels of the 1 mm template
FOREGROUND = 0.05
STRAY_SHARE = 0.001
SMALLEST_HEAD_MM = 60.0  # the paper's cube is for human heads; about anything smaller it is as much larger than that
ROOM = 1.25


def canvas_grid(mri: Image, voxels: int = CANVAS_VOXELS, least_mm: float = CANVAS_MM) -> Grid:
    """Choose the cube about the MRI's foreground: `voxels` a side, axes along L, P and S, its voxels cubes too.

    The side is `least_mm` (the paper's), or the foreground's longest side where that is more; a foreground shorter than
    60 mm, no human head, gets a cube a quarter longer than itself. Raises ImageError for an MRI without foreground.
    """
    low, high = foreground_box_mm(mri)
    longest = float((high - low).max())
    side = max(least_mm, longest) if longest >= SMALLEST_HEAD_MM else ROOM * longest
    x, y, z = ((low + high) / 2).tolist()
    return Grid.centered((x, y, z), (voxels,) * 3, (side / voxels,) * 3)


def foreground_box_mm(mri: Image) -> tuple[Vector, Vector]:
    """Return the corners, low and high (3,), LPS mm, of the box about what is brighter than 5 % of the scale.

    Means of 3^3 voxels are looked at, and a thousandth of them may stick out on each side: noise in the air must not
    decide. Raises ImageError where there is nothing so bright.
    """
    scaled = find_scaling(mri).applied(mri.voxels)
    means = F.avg_pool3d(scaled[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    bright = (means > FOREGROUND).nonzero().flip(-1)
    if len(bright) < 2:
        raise ImageError(f"{mri.name}: nothing in it is brighter than 5 % of its scale: is this an MRI?")
    points = mri.grid.to_physical(bright.double()).sort(dim=0).values
    stray = int(len(points) * STRAY_SHARE)
    return points[stray], points[len(points) - 1 - stray]


def on_canvas(mri: Image, pet: Image, voxels: int = CANVAS_VOXELS) -> tuple[Image, Image]:
    """Bring both onto `canvas_grid` (trilinear, as published); padding, and what lies beyond an image, show nothing."""
    grid, no_uptake = canvas_grid(mri, voxels), find_uptake_scaling(pet)
    structure = find_scaling(mri).emptied(mri)
    darkest = float(structure.voxels.min())
    return structure.resampled(grid, fill=darkest), no_uptake.emptied(pet).resampled(grid, fill=no_uptake.low)
