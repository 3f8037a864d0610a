"""What a page's viewer displays: images, masks and maps as bytes on one grid, packed into the page."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from crossalign.geometry import Grid, Rigid, resample
from crossalign.images import Image, LabelMap, scale_intensity
from crossalign.types import Points, Scan, Vector

MARGIN_MM = 25.0
LARGEST_AXIS = 128
LARGEST_VOXELS = 850_000  # three images of noise at this size make a page of about 3.5 MB
FINEST_MM = 0.25
SMOOTHING = (0.25, 0.5, 0.25)


def display_grid(fixed: Grid, moving: Grid, structure_mm: Points | None) -> Grid:
    """Choose the viewer's grid: isotropic voxels, axes along L, P and S, about the structure or the whole fixed image.

    `structure_mm` (n, 3) are points of the structure; 25 mm are left about them where the fixed image goes that far.
    The spacing is half of the finest of the two images, or what keeps the page small (128 voxels an axis).
    """
    low, high = torch.aminmax(fixed.corners_mm(), dim=0)
    if structure_mm is not None:
        low = torch.maximum(low, structure_mm.amin(0) - MARGIN_MM)
        high = torch.minimum(high, structure_mm.amax(0) + MARGIN_MM)
    extent = (high - low).clamp(min=1.0)
    spacing = max(
        FINEST_MM,
        min(*fixed.spacing_mm, *moving.spacing_mm) / 2,
        float(extent.max()) / (LARGEST_AXIS - 1),
        float(extent.prod() / LARGEST_VOXELS) ** (1 / 3),
    )
    width, height, depth = ((extent / spacing).floor().long() + 1).tolist()
    x, y, z = ((low + high) / 2).tolist()
    return Grid.centered((x, y, z), (depth, height, width), (spacing, spacing, spacing))


def grey_levels(image: Image, grid: Grid, grid_to_image: Rigid | None = None) -> Scan:
    """Return an image's intensities on the display grid, 0 to 1, and NaN beyond its border."""
    grey = _resampled(scale_intensity(image), grid, grid_to_image)
    everywhere = torch.ones(1, 1, 1, 1, 1).expand(1, 1, *image.grid.shape)  # one number, whatever the size
    inside = resample(everywhere, image.grid, grid, grid_to_image)[0, 0] > 0.5
    return torch.where(inside, grey, torch.full_like(grey, torch.nan))


def contrast_window(grey: Scan) -> tuple[float, float]:
    """Choose the darkest and the brightest intensity: all but 1 % of what is displayed, empty background left out."""
    values = grey[grey > 0].sort().values
    if len(values) < 2 or bool(values[0] == values[-1]):
        return (0.0, 1.0)
    last = len(values) - 1
    return float(values[int(0.005 * last)]), float(values[int(0.995 * last)])


def grey_bytes(grey: Scan, window: tuple[float, float] | None = None) -> UInt8[Tensor, "z y x"]:
    """Turn intensities into 1 (the window's low end) to 255 (its high end), and NaN into 0; None chooses the window."""
    low, high = contrast_window(grey) if window is None else window
    shade = 1 + ((grey - low) / max(high - low, 1e-6)).clamp(0, 1) * 254
    return torch.nan_to_num(shade.round(), nan=0.0).to(torch.uint8)


def unit_bytes(values: Float[Tensor, "zb yb xb"]) -> UInt8[Tensor, "zb yb xb"]:
    """Turn values of 0 to 1 into 0 to 255."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def mask_bytes(label_map: LabelMap, grid: Grid, grid_to_map: Rigid | None = None) -> UInt8[Tensor, "z y x"]:
    """Return the fraction of the structure in each voxel of the display grid, 0 to 255: its outline is at 127.5.

    Each voxel is first averaged with its neighbours (weights 1, 2, 1 along each axis), so that the outline follows the
    surface and not the steps of the voxels; flat surfaces stay where they are.
    """
    return unit_bytes(_resampled(_smoothed(label_map), grid, grid_to_map))


def _smoothed(label_map: LabelMap) -> Image:
    """Average each voxel of the structure's box, and two beyond, with its neighbours; further out all is 0."""
    first, size = label_map.foreground_box()
    low = [max(0, start - 2) for start in first]
    high = [min(n, start + count + 2) for n, start, count in zip(label_map.grid.shape, first, size, strict=True)]
    z, y, x = (slice(start, end) for start, end in zip(low, high, strict=True))
    fraction = (label_map.labels[z, y, x] != 0).float()
    for axis in range(3):  # in place: a copy of a large mask would take as much memory again
        ndimage.correlate1d(fraction.numpy(), SMOOTHING, axis, output=fraction.numpy(), mode="nearest")
    depth, height, width = fraction.shape
    return Image(fraction, label_map.grid.part((low[0], low[1], low[2]), (depth, height, width)), label_map.name)


def _resampled(image: Image, grid: Grid, grid_to_image: Rigid | None) -> Scan:
    """Resample; where the image is much finer than the grid, average 2 x 2 x 2 samples against aliasing."""
    spacing = grid.spacing_mm[0]
    if min(image.grid.spacing_mm) > 0.75 * spacing:
        return image.resampled(grid, grid_to_image, fill=0.0).voxels
    depth, height, width = grid.shape
    x, y, z = grid.center_mm().tolist()
    half = (spacing / 2,) * 3
    finer = Grid.centered((x, y, z), (2 * depth, 2 * height, 2 * width), half)
    return F.avg_pool3d(image.resampled(finer, grid_to_image, fill=0.0).voxels[None, None], 2)[0, 0]


def packed(values: Tensor | NDArray[np.uint8]) -> str:
    """Pack bytes, the last axis fastest, as base64 of gzip without a time stamp: the same bytes give the same text."""
    content = np.ascontiguousarray(values).tobytes()
    return base64.b64encode(gzip.compress(content, compresslevel=9, mtime=0)).decode()


@dataclass(frozen=True)
class ViewerData:
    """What every page's script reads: the display grid, the first position, and packed volumes by name.

    `sizes` and `start_voxel` are (x, y, z); `origin_mm` is the centre of voxel (0, 0, 0), LPS.
    """

    sizes: tuple[int, ...]
    spacing_mm: float
    origin_mm: tuple[float, ...]
    start_voxel: tuple[int, ...]
    scans: dict[str, str]
    outlines: dict[str, str]

    @staticmethod
    def on_grid(
        grid: Grid, start_mm: Vector, scans: Mapping[str, Tensor], outlines: Mapping[str, Tensor] | None = None
    ) -> ViewerData:
        """Pack volumes (z, y, x) of bytes that lie on the display grid; the crosshair starts at `start_mm` (3,)."""
        sizes = grid.shape[::-1]
        index = grid.to_voxel(start_mm.cpu().double()[None])[0].round().long().tolist()
        return ViewerData(
            sizes=sizes,
            spacing_mm=round(grid.spacing_mm[0], 4),
            origin_mm=tuple(round(value, 2) for value in grid.origin_mm),
            start_voxel=tuple(min(max(i, 0), n - 1) for i, n in zip(index, sizes, strict=True)),
            scans={name: packed(volume) for name, volume in scans.items()},
            outlines={name: packed(volume) for name, volume in (outlines or {}).items()},
        )
