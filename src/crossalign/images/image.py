"""Image and LabelMap: voxels and the grid that they lie on; and work on volumes a few slices at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from crossalign.errors import ImageError
from crossalign.geometry import Grid, Rigid, resample, resample_labels
from crossalign.types import Labels, Mask, Points, Scan, Shape, Vector

SLAB_VOXELS = 2**20


def slabs(volume: Tensor, axis: int = 0, voxels: int = SLAB_VOXELS) -> Iterator[Tensor]:
    """Yield views of a tensor, one after another along an axis, each of about `voxels` elements or of one slice."""
    length = volume.shape[axis]
    thickness = max(1, voxels * length // max(1, volume.numel()))
    for first in range(0, length, thickness):
        yield volume.narrow(axis, first, min(thickness, length - first))


def count_where(volume: Tensor, test: Callable[[Tensor], Tensor]) -> int:
    """Count the elements of a tensor that pass a test, which maps a part of it to booleans."""
    return sum(int(torch.count_nonzero(test(part))) for part in slabs(volume))


def marked_voxels(mask: Mask, ranks: Int[Tensor, " k"]) -> Int[Tensor, "k 3"]:
    """Return the indices (z, y, x) of the marked voxels of these ranks: 0 is the first in the order of storage.

    As `mask.nonzero()[ranks]`, which takes 24 bytes for each marked voxel.
    """
    found = torch.zeros((len(ranks), 3), dtype=torch.int64, device=mask.device)
    done, first = 0, 0
    for part in slabs(mask):
        count = int(torch.count_nonzero(part))
        here = (ranks >= done) & (ranks < done + count)
        if bool(here.any()):
            indices = part.nonzero()
            indices[:, 0] += first
            found[here] = indices[ranks[here] - done]
        done, first = done + count, first + len(part)
    return found


POINT_SLAB_VOXELS = 2**18  # of a mask: points take up to 100 bytes each on the way
UNKNOWN_FRACTION = 1e-3  # of an interpolated value: less comes of rounding, where a sample lies on a voxel beside a NaN


@dataclass(frozen=True, eq=False)
class Image:
    """A scan (z, y, x), float32, on its grid. `name` says the scan in messages, `unit` what its values are, as SUV.

    `space` tells its physical space from others where the file says it (DICOM's frame of reference); never shown.
    `modality` is DICOM's code of what made it, as MR or PT, where the file says it.
    """

    voxels: Scan
    grid: Grid
    name: str = "image"
    unit: str = ""
    space: str = field(default="", repr=False)
    modality: str = ""

    def __post_init__(self) -> None:
        _check_shape(self.voxels.shape, self.grid, self.name)

    def resampled(self, grid: Grid, grid_to_image: Rigid | None = None, fill: float | None = None) -> Image:
        """Resample the scan onto another grid, trilinear; outside it is `fill`, by default the scan's `empty_value`.

        What is interpolated from a NaN or infinite voxel is NaN.
        """
        if fill is None:
            from crossalign.images.intensity import empty_value  # intensity imports Image

            fill = empty_value(self.voxels)
        unknown = self._unknown()
        voxels = self.voxels if unknown is None else self.voxels.masked_fill(unknown, 0.0)
        moved = resample(voxels[None, None], self.grid, grid, grid_to_image, fill=fill)
        if unknown is not None:
            fraction = resample(unknown[None, None].to(voxels), self.grid, grid, grid_to_image)
            moved = moved.masked_fill(fraction > UNKNOWN_FRACTION, torch.nan)
        return Image(moved[0, 0], grid, self.name, self.unit, modality=self.modality)

    def _unknown(self) -> Mask | None:
        """Mark the voxels that are NaN or infinite; None where none is."""
        if all(bool(part.isfinite().all()) for part in slabs(self.voxels)):
            return None
        return ~self.voxels.isfinite()


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmentation (z, y, x), int64, on its grid; 0 is background. `space` as an Image's."""

    labels: Labels
    grid: Grid
    name: str = "label map"
    space: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        _check_shape(self.labels.shape, self.grid, self.name)

    def resampled(self, grid: Grid, grid_to_map: Rigid | None = None, fill: int = 0) -> LabelMap:
        """Resample the labels onto another grid, nearest voxel; outside they are `fill`."""
        return LabelMap(resample_labels(self.labels, self.grid, grid, grid_to_map, fill), grid, self.name)

    def foreground(self) -> Image:
        """Return everything that is not background, as a scan of 0 and 1."""
        return Image((self.labels != 0).float(), self.grid, self.name)

    def foreground_count(self) -> int:
        """Count the voxels that are not background."""
        return int(torch.count_nonzero(self.labels))

    def foreground_box(self) -> tuple[Shape, Shape]:
        """Return the foreground's box: its first voxel (z, y, x) and size; raises ImageError where there is none."""
        slices = []
        columns = torch.zeros(self.labels.shape[1:], dtype=torch.uint8, device=self.labels.device)
        for part in slabs(self.labels):
            inside = (part != 0).view(torch.uint8)  # `amax` of bytes takes a tenth of the time of `any`
            slices.append(inside.amax((1, 2)))
            columns = torch.maximum(columns, inside.amax(0))
        indices = [axis.nonzero()[:, 0] for axis in (torch.cat(slices), columns.amax(1), columns.amax(0))]
        if len(indices[0]) == 0:
            raise ImageError(f"{self.name}: the mask is empty: give one whose structure has values other than 0")
        z, y, x = (int(index[0]) for index in indices)
        depth, height, width = (int(index[-1] - index[0]) + 1 for index in indices)
        return (z, y, x), (depth, height, width)

    def points_mm(self, ranks: Int[Tensor, " k"] | None = None) -> Points:
        """Centres of the foreground voxels, (n, 3), float64, in the order in which they are stored.

        With `ranks`, numbers from 0 to n - 1 in any order, only those of these, (k, 3): all of them take 24 bytes each.
        Raises ImageError where there are none.
        """
        if ranks is None:
            return torch.cat(list(self._point_slabs()))
        found = torch.empty((len(ranks), 3), dtype=torch.float64, device=self.labels.device)
        done = 0
        for points in self._point_slabs():
            here = (ranks >= done) & (ranks < done + len(points))
            found[here] = points[ranks[here] - done]
            done += len(points)
        return found

    def sampled_points_mm(self, most: int) -> Points:
        """Centres of `most` foreground voxels or fewer, (k, 3), float64: every j-th in the order of storage.

        Raises ImageError where there are none.
        """
        count = self.foreground_count()
        return self.points_mm(None if count <= most else torch.arange(0, count, -(-count // most)))

    def extremes_mm(self) -> Points:
        """Lowest and highest x, y and z of the foreground voxels' centres, (2, 3), float64."""
        ends = [torch.stack((points.amin(0), points.amax(0))) for points in self._point_slabs()]
        low_high = torch.stack(ends)
        return torch.stack((low_high[:, 0].amin(0), low_high[:, 1].amax(0)))

    def centroid_mm(self) -> Vector:
        """Centre of mass of the foreground, (3,), float64; raises ImageError where there is none."""
        total, count = torch.zeros(3, dtype=torch.float64, device=self.labels.device), 0
        for points in self._point_slabs():
            total, count = total + points.sum(0), count + len(points)
        return total / count

    def _point_slabs(self) -> Iterator[Points]:
        """Yield the foreground's points (n, 3), mm, a few slices of its box at a time."""
        (z, y, x), (depth, height, width) = self.foreground_box()
        offset = torch.tensor([x, y, z], dtype=torch.float64, device=self.labels.device)
        for part in slabs(self.labels[z : z + depth, y : y + height, x : x + width], voxels=POINT_SLAB_VOXELS):
            index = part.nonzero().flip(-1).double().add_(offset)
            offset[2] += len(part)
            if len(index) > 0:
                yield self.grid.to_physical(index)


def _check_shape(got: torch.Size, grid: Grid, name: str) -> None:
    if tuple(got) != grid.shape:
        raise ImageError(f"{name}: the voxels are {tuple(got)} (z, y, x) but the grid says {grid.shape}")
