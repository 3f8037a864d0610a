"""RT structure sets: closed contours in planes, filled by the even-odd rule on the slices that they were drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images.files.dicom.identity import without_identity
from crossalign.images.files.dicom.parsing import parsed
from crossalign.images.files.structures import Structure
from crossalign.images.image import LabelMap
from crossalign.images.memory import check_memory
from crossalign.input import excerpt

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Contour = NDArray[np.float64]  # (n, 3), LPS, mm
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
POINT_LIMIT = 20_000_000
ON_SLICE = 0.1  # of the distance between slices
FLAT_MM = 0.1
PARALLEL = 1 - 1e-6  # cosine
DEFAULT_SPACING_MM = 1.0
MARGIN = 2  # voxels around the contours, where no image gives a grid


@dataclass(frozen=True, eq=False)
class StructureSet:
    """The regions of interest of an RT structure set with their closed contours."""

    name: str
    structures: tuple[Structure, ...]
    contours: tuple[tuple[Contour, ...], ...]
    memory_limit_bytes: int | None
    space: str

    def drawn(self, numbers: Sequence[int], image: Grid | None) -> list[LabelMap]:
        """Fill the contours of some structures; on the image's grid where they lie on its slices, else on their own."""
        by_number = {one.number: drawn for one, drawn in zip(self.structures, self.contours, strict=True)}
        chosen = [by_number[number] for number in numbers]
        every = [contour for contours in chosen for contour in contours]
        if not every:
            raise ImageError(f"{self.name}: the structure has no closed contour, expected one on each slice: draw it")
        if image is not None and all(_lies_on_slices(contour, image) for contour in every):
            grid = _extended(image, np.concatenate(every))
        else:
            grid = self._own_grid(every, image)
        check_memory(grid.shape[::-1], self.name, self.memory_limit_bytes)
        return [LabelMap(torch.from_numpy(filled(contours, grid)), grid, self.name) for contours in chosen]

    def _own_grid(self, contours: Sequence[Contour], image: Grid | None) -> Grid:
        """Make a grid whose slices are the planes of the contours."""
        normal = _normal(max(contours, key=_area))
        depths = [contour @ normal for contour in contours]
        if max(float(np.ptp(depth)) for depth in depths) > FLAT_MM:
            raise ImageError(
                f"{self.name}: its contours do not lie in parallel planes: export it again from its source"
            )
        planes = np.unique(np.round([float(depth.mean()) for depth in depths], 2))
        step = float(np.median(np.diff(planes))) if len(planes) > 1 else DEFAULT_SPACING_MM
        places = (planes - planes[0]) / step
        if np.abs(places - places.round()).max() > 2 * ON_SLICE:
            raise ImageError(
                f"{self.name}: its contours lie on slices that are not evenly spaced: give a mask that is an image"
            )
        axes, pixels, phase = _in_plane(normal, image)
        points = np.concatenate(contours) @ axes
        low = phase + (np.floor((points[:, :2].min(0) - phase) / pixels) - MARGIN) * pixels
        width, height = (np.ceil((points[:, :2].max(0) - low) / pixels) + 1 + MARGIN).astype(int).tolist()
        slices = round(float(places[-1])) + 1
        if slices == 1:  # a structure on one slice is as thick as the slice, which no header tells
            step = DEFAULT_SPACING_MM if image is None else max(image.spacing_mm)
        check_memory((width, height, slices), self.name, self.memory_limit_bytes)
        x, y, z = (axes @ np.array([*low, planes[0]])).tolist()
        (a, b, c), (d, e, f), (g, h, i) = axes.tolist()
        first, second = pixels.tolist()
        return Grid((slices, height, width), (first, second, step), (x, y, z), ((a, b, c), (d, e, f), (g, h, i)))


def _in_plane(
    normal: NDArray[np.float64], image: Grid | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return axes (columns, the normal last), the size of pixels, and where one of them lies along the first two axes.

    They are the image's where its slices are parallel to the contours, so that nothing is resampled within them.
    """
    if image is not None:
        direction = np.array(image.direction)
        if abs(float(direction[:, 2] @ normal)) > PARALLEL:
            axes = np.column_stack((direction[:, 0], direction[:, 1], normal))
            return axes, np.array(image.spacing_mm[:2]), np.array(image.origin_mm) @ axes[:, :2]
    along = np.eye(3)[int(np.abs(normal).argmin())]
    first = along - normal * (along @ normal)
    first /= np.linalg.norm(first)
    pixel = DEFAULT_SPACING_MM if image is None else min(image.spacing_mm)
    return np.stack((first, np.cross(normal, first), normal), axis=1), np.full(2, pixel), np.zeros(2)


def read_structure_set(path: Path, name: str, memory_limit_bytes: int | None = None) -> StructureSet:
    """Read an RT structure set; raises ImageError."""
    return parsed(path, name, lambda dataset: _structure_set(dataset, memory_limit_bytes))


def _structure_set(dataset: Dataset, memory_limit_bytes: int | None) -> StructureSet:
    name = excerpt(dataset.get("Modality") or "RTSTRUCT", 16)
    drawn: dict[int, list[Contour]] = {}
    count = 0
    for region in dataset.get("ROIContourSequence") or []:
        contours = drawn.setdefault(int(region.ReferencedROINumber), [])
        for contour in region.get("ContourSequence") or []:
            if str(contour.get("ContourGeometricType", "")) not in CLOSED:
                continue
            points = np.array(list(contour.ContourData), np.float64)
            count += len(points)
            if len(points) % 3 or count > 3 * POINT_LIMIT or not np.isfinite(points).all():
                raise ImageError(f"{name}: a contour is damaged or holds too many points: export it again")
            if len(points) >= 9:
                contours.append(points.reshape(-1, 3))
    regions = [
        Structure(int(region.ROINumber), without_identity(region.get("ROIName", ""), dataset))
        for region in dataset.get("StructureSetROISequence") or []
    ]
    referenced = list(dataset.get("ReferencedFrameOfReferenceSequence") or [])
    return StructureSet(
        name=name,
        structures=tuple(regions),
        contours=tuple(tuple(drawn.get(region.number, [])) for region in regions),
        memory_limit_bytes=memory_limit_bytes,
        space=str(referenced[0].get("FrameOfReferenceUID") or "") if len(referenced) == 1 else "",
    )


def filled(contours: Sequence[Contour], grid: Grid) -> NDArray[np.int64]:
    """Mark the voxels (z, y, x) whose centres lie within an odd number of the contours of their slice."""
    to_voxel = grid.physical_to_voxel().numpy()
    depth, height, width = grid.shape
    result = np.zeros(grid.shape, np.int64)
    crossed: dict[int, NDArray[np.int32]] = {}
    for contour in contours:
        points = contour @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        plane = round(float(points[:, 2].mean()))
        if 0 <= plane < depth:
            _cross(crossed.setdefault(plane, np.zeros((height, width + 1), np.int32)), points[:, :2])
    for plane, counts in crossed.items():
        result[plane] = counts[:, :width].cumsum(1) % 2
    return result


def _cross(counts: NDArray[np.int32], points: NDArray[np.float64]) -> None:
    """Count where lines through the centres of rows cross a closed polygon, at the first pixel right of each place."""
    height, beyond = counts.shape[0], counts.shape[1] - 1
    begins, ends = points, np.roll(points, -1, axis=0)
    lows, highs = np.minimum(begins[:, 1], ends[:, 1]), np.maximum(begins[:, 1], ends[:, 1])
    first, stop = np.ceil(lows).clip(0, height).astype(int), np.ceil(highs).clip(0, height).astype(int)
    lengths = stop - first  # rows with low <= row < high, so that a corner counts once
    edges = np.repeat(np.arange(len(points)), lengths)
    rows = np.arange(len(edges)) - np.repeat(lengths.cumsum() - lengths, lengths) + first[edges]
    slope = (ends[edges, 0] - begins[edges, 0]) / (ends[edges, 1] - begins[edges, 1])
    columns = np.ceil(begins[edges, 0] + (rows - begins[edges, 1]) * slope).clip(0, beyond).astype(int)
    np.add.at(counts, (rows, columns), 1)


def _lies_on_slices(contour: Contour, grid: Grid) -> bool:
    to_voxel = grid.physical_to_voxel().numpy()
    depths = contour @ to_voxel[2, :3] + to_voxel[2, 3]
    return bool(np.abs(depths - round(float(depths.mean()))).max() <= ON_SLICE)


def _extended(grid: Grid, points: Contour) -> Grid:
    """Return the image's grid, continued beyond its borders where the contours reach further."""
    to_voxel = grid.physical_to_voxel().numpy()
    index = points @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    low = np.minimum(np.floor(index.min(0) + 0.5), 0).astype(int)
    high = np.maximum(np.floor(index.max(0) + 0.5), np.array(grid.shape[::-1]) - 1).astype(int)
    x, y, z = low.tolist()
    width, height, depth = (high - low + 1).tolist()
    whole = (z, y, x) == (0, 0, 0) and (depth, height, width) == grid.shape
    return grid if whole else grid.part((z, y, x), (depth, height, width))


def _vector(contour: Contour) -> NDArray[np.float64]:
    """Twice the area of a polygon, as a vector along its normal."""
    return np.asarray(np.cross(contour, np.roll(contour, -1, axis=0)).sum(0), np.float64)


def _area(contour: Contour) -> float:
    return float(np.linalg.norm(_vector(contour - contour[0])))


def _normal(contour: Contour) -> Any:
    vector = _vector(contour - contour[0])
    length = float(np.linalg.norm(vector))
    if length == 0:
        return np.array([0.0, 0.0, 1.0])
    normal = vector / length
    return normal if normal[int(np.abs(normal).argmax())] > 0 else -normal
