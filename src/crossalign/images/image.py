"""Image and LabelMap: voxels and the grid that they lie on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crossalign.errors import ImageError
from crossalign.geometry import Grid, Rigid, resample
from crossalign.types import Labels, Points, Scan, Vector


@dataclass(frozen=True, eq=False)
class Image:
    """A scan (z, y, x), float32, on its grid. `name` says in messages which one it is."""

    voxels: Scan
    grid: Grid
    name: str = "image"

    def __post_init__(self) -> None:
        _check_shape(self.voxels.shape, self.grid, self.name)

    def resampled(self, grid: Grid, grid_to_image: Rigid | None = None, fill: float | None = None) -> Image:
        """Bring the scan onto another grid, trilinear; outside it is `fill`, or the image's own minimum."""
        value = float(self.voxels.min()) if fill is None else fill
        moved = resample(self.voxels[None, None], self.grid, grid, grid_to_image, fill=value)
        return Image(moved[0, 0], grid, self.name)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmentation (z, y, x), int64, on its grid; 0 is background."""

    labels: Labels
    grid: Grid
    name: str = "label map"

    def __post_init__(self) -> None:
        _check_shape(self.labels.shape, self.grid, self.name)

    def resampled(self, grid: Grid, grid_to_map: Rigid | None = None) -> LabelMap:
        """Bring the labels onto another grid, nearest voxel; outside they are 0."""
        volume = self.labels[None, None].double()
        moved = resample(volume, self.grid, grid, grid_to_map, nearest=True)
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
