"""Image and LabelMap: voxels and the grid that they lie on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crossalign.errors import ImageError
from crossalign.geometry import Grid, Rigid, resample
from crossalign.types import Labels, Points, Scan, Vector

UNKNOWN_SHARE = 1e-3  # of an interpolated value: less comes of rounding, where a sample lies on a voxel beside a NaN


@dataclass(frozen=True, eq=False)
class Image:
    """A scan (z, y, x), float32, on its grid. `name` says in messages which one it is."""

    voxels: Scan
    grid: Grid
    name: str = "image"

    def __post_init__(self) -> None:
        _check_shape(self.voxels.shape, self.grid, self.name)

    def resampled(self, grid: Grid, grid_to_image: Rigid | None = None, fill: float | None = None) -> Image:
        """Bring the scan onto another grid, trilinear; outside it is `fill`, or what the scan means by nothing.

        That is `empty_value`. What is interpolated from a NaN or infinite voxel is NaN.
        """
        if fill is None:
            from crossalign.images.intensity import empty_value  # intensity imports Image

            fill = empty_value(self.voxels)
        voxels, unknown = self.voxels, ~self.voxels.isfinite()
        if bool(unknown.any()):
            voxels = voxels.masked_fill(unknown, 0.0)
        moved = resample(voxels[None, None], self.grid, grid, grid_to_image, fill=fill)
        if bool(unknown.any()):
            share = resample(unknown[None, None].to(voxels), self.grid, grid, grid_to_image)
            moved = moved.masked_fill(share > UNKNOWN_SHARE, torch.nan)
        return Image(moved[0, 0], grid, self.name)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmentation (z, y, x), int64, on its grid; 0 is background."""

    labels: Labels
    grid: Grid
    name: str = "label map"

    def __post_init__(self) -> None:
        _check_shape(self.labels.shape, self.grid, self.name)

    def resampled(self, grid: Grid, grid_to_map: Rigid | None = None, fill: int = 0) -> LabelMap:
        """Bring the labels onto another grid, nearest voxel; outside they are `fill`."""
        volume = self.labels[None, None].double()
        moved = resample(volume, self.grid, grid, grid_to_map, fill=float(fill), nearest=True)
        return LabelMap(moved[0, 0].to(torch.int64), grid, self.name)

    def foreground(self) -> Image:
        """Everything that is not background, as a scan of 0 and 1."""
        return Image((self.labels != 0).float(), self.grid, self.name)

    def points_mm(self) -> Points:
        """Centres of the foreground voxels, (n, 3), float64; raises ImageError where there are none."""
        index = (self.labels != 0).nonzero().flip(-1).double()
        if len(index) == 0:
            raise ImageError(f"{self.name}: the mask is empty: give one whose structure has values other than 0")
        return self.grid.to_physical(index)

    def centroid_mm(self) -> Vector:
        """Centre of mass of the foreground, (3,), float64; raises ImageError where there is none."""
        return self.points_mm().mean(0)


def _check_shape(got: torch.Size, grid: Grid, name: str) -> None:
    if tuple(got) != grid.shape:
        raise ImageError(f"{name}: the voxels are {tuple(got)} (z, y, x) but the grid says {grid.shape}")
