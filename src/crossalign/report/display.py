"""What the page's viewer shows: scans and outlines on one display grid, as bytes that fit into a web page."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from crossalign.geometry import Grid, Rigid, resample
from crossalign.images import Image, LabelMap, scale_intensity
from crossalign.types import Points, Vector

MARGIN_MM = 25.0
LARGEST_AXIS = 128
LARGEST_VOXELS = 850_000  # three scans of noise at this size make a page of about 3.5 MB
FINEST_MM = 0.25


def display_grid(fixed: Grid, moving: Grid, structure_mm: Points | None) -> Grid:
    """Choose the viewer's grid: isotropic voxels, axes along L, P and S, about the structure or the whole fixed image.

    `structure_mm` (n, 3) are points of the gland; 25 mm are left about them where the fixed image goes that far. The
    spacing is half of the finest of the two scans, or what keeps the page small (128 voxels an axis).
    """
    low, high = _box(fixed.corners_mm())
    if structure_mm is not None:
        inner_low, inner_high = _box(structure_mm)
        low, high = torch.maximum(low, inner_low - MARGIN_MM), torch.minimum(high, inner_high + MARGIN_MM)
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


def _box(points_mm: Points) -> tuple[Vector, Vector]:
    return points_mm.amin(0), points_mm.amax(0)


def scan_grey(image: Image, grid: Grid, grid_to_image: Rigid | None = None) -> Float[Tensor, "z y x"]:
    """Intensity of a scan on the display grid, 0 to 1, and NaN beyond its border."""
    grey = _resampled(scale_intensity(image), grid, grid_to_image)
    everywhere = torch.ones(1, 1, 1, 1, 1).expand(1, 1, *image.grid.shape)  # one number, whatever the size
    inside = resample(everywhere, image.grid, grid, grid_to_image)[0, 0] > 0.5
    return torch.where(inside, grey, torch.full_like(grey, torch.nan))


def contrast_window(grey: Float[Tensor, "z y x"]) -> tuple[float, float]:
    """Choose the darkest and the brightest shade shown: all but 1 % of what is in view, empty background left out."""
    seen = grey[grey > 0].sort().values
    if len(seen) < 2 or bool(seen[0] == seen[-1]):
        return (0.0, 1.0)
    last = len(seen) - 1
    return float(seen[int(0.005 * last)]), float(seen[int(0.995 * last)])


def scan_bytes(grey: Float[Tensor, "z y x"], window: tuple[float, float]) -> UInt8[Tensor, "z y x"]:
    """Turn intensities into 1 (the window's low end) to 255 (its high end), and NaN into 0."""
    low, high = window
    shade = 1 + ((grey - low) / max(high - low, 1e-6)).clamp(0, 1) * 254
    return torch.nan_to_num(shade.round(), nan=0.0).to(torch.uint8)


def mask_bytes(label_map: LabelMap, grid: Grid, grid_to_map: Rigid | None = None) -> UInt8[Tensor, "z y x"]:
    """Share of the structure in each voxel of the display grid, 0 to 255: its outline is where this passes 127.5.

    Each voxel is first averaged with its neighbours (weights 1, 2, 1 along each axis), so that the outline shows the
    surface and not the steps of the voxels; flat surfaces stay where they are.
    """
    soft = _softened(label_map)
    return (_resampled(soft, grid, grid_to_map).clamp(0, 1) * 255).round().to(torch.uint8)


def _softened(label_map: LabelMap) -> Image:
    """Average each voxel of the structure's box, and two beyond, with its neighbours; further out all is 0."""
    first, size = label_map.foreground_box()
    low = [max(0, start - 2) for start in first]
    high = [min(n, start + count + 2) for n, start, count in zip(label_map.grid.shape, first, size, strict=True)]
    z, y, x = (slice(start, end) for start, end in zip(low, high, strict=True))
    share = (label_map.labels[z, y, x] != 0).float()
    kernel = torch.tensor([0.25, 0.5, 0.25])
    kernel = (kernel[:, None, None] * kernel[:, None] * kernel)[None, None]
    soft = torch.empty_like(share)
    for start in range(len(share)):  # one slice after another: a padded copy of the whole would take as much again
        around = share[torch.arange(start - 1, start + 2).clamp(0, len(share) - 1)]
        padded = F.pad(around[None], (1, 1, 1, 1), mode="replicate")[None]
        soft[start] = F.conv3d(padded, kernel)[0, 0, 0]
    depth, height, width = share.shape
    return Image(soft, label_map.grid.part((low[0], low[1], low[2]), (depth, height, width)), label_map.name)


def _resampled(image: Image, grid: Grid, grid_to_image: Rigid | None) -> Tensor:
    """Resample (z, y, x); where the scan is much finer than the grid, average 2 x 2 x 2 samples against aliasing."""
    spacing = grid.spacing_mm[0]
    if min(image.grid.spacing_mm) > 0.75 * spacing:
        return image.resampled(grid, grid_to_image, fill=0.0).voxels
    depth, height, width = grid.shape
    x, y, z = grid.center_mm().tolist()
    half = (spacing / 2,) * 3
    finer = Grid.centered((x, y, z), (2 * depth, 2 * height, 2 * width), half)
    return F.avg_pool3d(image.resampled(finer, grid_to_image, fill=0.0).voxels[None, None], 2)[0, 0]


def packed(volume: UInt8[Tensor, "z y x"]) -> str:
    """Pack bytes (x fastest) as base64 of gzip, without a time stamp: the same volume gives the same text."""
    return base64.b64encode(gzip.compress(volume.contiguous().numpy().tobytes(), compresslevel=9, mtime=0)).decode()


@dataclass(frozen=True)
class ViewerData:
    """What the page's script reads: the display grid, where to look first, and the packed volumes by name.

    `sizes` and `start_voxel` are (x, y, z); `origin_mm` is the centre of voxel (0, 0, 0), LPS.
    """

    sizes: tuple[int, ...]
    spacing_mm: float
    origin_mm: tuple[float, ...]
    start_voxel: tuple[int, ...]
    scans: dict[str, str]
    outlines: dict[str, str]

    @staticmethod
    def on_grid(grid: Grid, look_at_mm: Vector, scans: dict[str, Tensor], outlines: dict[str, Tensor]) -> ViewerData:
        """Pack volumes (z, y, x) that lie on the display grid."""
        sizes = grid.shape[::-1]
        index = grid.to_voxel(look_at_mm[None])[0].round().long().tolist()
        start = tuple(min(max(i, 0), n - 1) for i, n in zip(index, sizes, strict=True))
        return ViewerData(
            sizes=sizes,
            spacing_mm=round(grid.spacing_mm[0], 4),
            origin_mm=tuple(round(value, 2) for value in grid.origin_mm),
            start_voxel=start,
            scans={name: packed(volume) for name, volume in scans.items()},
            outlines={name: packed(volume) for name, volume in outlines.items()},
        )
