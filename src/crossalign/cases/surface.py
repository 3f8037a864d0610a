"""Points on the surface of a gland, where the papers measure the registration error."""

import torch

from crossalign.errors import InputError
from crossalign.images import LabelMap
from crossalign.types import Points

SURFACE_POINTS = 1024


def surface_points(mask: LabelMap, count: int = SURFACE_POINTS) -> Points:
    """Return up to `count` points (n, 3), mm, float64, spread evenly over the faces between foreground and background.

    The faces' centres are listed axis by axis and every k-th is kept: no chance is involved. A structure cut off by
    the edge of the image has no face there. Raises ImageError for an empty mask.
    """
    if count < 1:
        raise InputError(f"ask for 1 surface point or more, got {count}")
    mask.points_mm()
    inside = mask.labels != 0
    faces = [_faces_across(inside, axis) for axis in range(3)]
    index = torch.cat(faces)
    if len(index) == 0:
        index = inside.nonzero().flip(-1).double()
    keep = torch.linspace(0, len(index) - 1, min(count, len(index))).round().long()
    return mask.grid.to_physical(index[keep])


def _faces_across(inside: torch.Tensor, axis: int) -> torch.Tensor:
    length = inside.shape[axis]
    crossing = inside.narrow(axis, 0, length - 1) != inside.narrow(axis, 1, length - 1)
    index = crossing.nonzero().double()
    index[:, axis] += 0.5
    return index.flip(-1)
