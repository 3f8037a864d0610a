"""DICOM segmentations (binary, fractional and label maps): frames of segments on a lattice, empty ones left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images.files.dicom.header import DicomHeader, read_dicom_header
from crossalign.images.files.dicom.identity import without_identity
from crossalign.images.files.dicom.parsing import parsed
from crossalign.images.files.dicom.pixels import frame_values
from crossalign.images.files.dicom.stack import EVEN, SAME_PLACE_MM, SIDEWAYS_PIXEL, slice_geometry
from crossalign.images.files.formats.header import Header
from crossalign.images.files.formats.placement import placed
from crossalign.images.files.structures import Structure
from crossalign.images.image import LabelMap
from crossalign.images.memory import check_memory

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

BINARY, FRACTIONAL, LABELMAP = "BINARY", "FRACTIONAL", "LABELMAP"
NAME = "SEG"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A DICOM segmentation: its segments, and where each frame lies (z) on its grid."""

    header: DicomHeader
    kind: str
    most: int
    structures: tuple[Structure, ...]
    grid: Grid
    places: tuple[int, ...]

    @property
    def name(self) -> str:
        """What messages call it."""
        return NAME

    @property
    def space(self) -> str:
        """Its frame of reference."""
        return self.header.space

    def drawn(self, numbers: Sequence[int], image: Grid | None) -> list[LabelMap]:  # noqa: ARG002 - it has its own grid
        """Read the frames of some segments, each as a label map of 0 and 1; a fractional one from half of its most."""
        maps = {number: np.zeros(self.grid.shape, np.int64) for number in numbers}
        wanted = set(maps)
        indices = [
            index for index, frame in enumerate(self.header.frames) if self.kind == LABELMAP or frame.segment in wanted
        ]
        for index, pixels in zip(indices, frame_values(self.header, indices, NAME), strict=True):
            for number in numbers if self.kind == LABELMAP else (self.header.frames[index].segment,):
                maps[number][self.places[index]] |= self._marked(pixels, number)
        return [LabelMap(torch.from_numpy(maps[number]), self.grid, NAME) for number in numbers]

    def _marked(self, pixels: NDArray[np.generic], number: int) -> NDArray[np.bool_]:
        if self.kind == LABELMAP:
            return np.asarray(pixels == number)
        return np.asarray(pixels.astype(np.int64) * 2 >= self.most if self.kind == FRACTIONAL else pixels != 0)


def read_segmentation(path: Path, name: str, memory_limit_bytes: int | None = None) -> Segmentation:
    """Read the header of a DICOM segmentation and place it; raises ImageError."""
    header = read_dicom_header(path, name)
    kind, most, structures = parsed(path, name, _described)
    if not header.frames:
        raise ImageError(f"{NAME}: the segmentation holds no frame: draw the structure, and export it again")
    grid, places = _lattice(header, memory_limit_bytes)
    return Segmentation(header, kind, most, structures, grid, places)


def _described(dataset: Dataset) -> tuple[str, int, tuple[Structure, ...]]:
    kind = str(dataset.get("SegmentationType", BINARY)).upper()
    structures = tuple(
        Structure(int(segment.SegmentNumber), without_identity(segment.get("SegmentLabel", ""), dataset))
        for segment in dataset.get("SegmentSequence") or []
        if int(segment.SegmentNumber) != 0 or kind != LABELMAP  # 0 of a label map is its background
    )
    return kind, int(dataset.get("MaximumFractionalValue", 255)), structures


def _lattice(header: DicomHeader, memory_limit_bytes: int | None) -> tuple[Grid, tuple[int, ...]]:
    """Return the grid of all frames, and the slice of each: several segments share slices, and empty ones may lack."""
    positions, rows, columns, spacing = slice_geometry(header.frames, NAME)
    normal = np.cross(rows, columns)
    depths = positions @ normal
    gaps = np.diff(np.unique(depths))
    gaps = gaps[gaps >= SAME_PLACE_MM]
    step = header.thickness_mm or 1.0
    if len(gaps) and np.abs(gaps / step - (gaps / step).round()).max() > EVEN:
        step = float(gaps.min())
    lowest = int(depths.argmin())
    places = ((depths - depths[lowest]) / step).round()
    expected = positions[lowest] + (places * step)[:, None] * normal
    if np.linalg.norm(positions - expected, axis=1).max() > max(EVEN * step, SIDEWAYS_PIXEL * min(spacing)):
        raise ImageError(
            f"{NAME}: the frames of the segmentation do not lie on one grid: export it again from its source"
        )
    width, height = header.size
    size = (width, height, int(places.max()) + 1)
    check_memory(size, NAME, memory_limit_bytes)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = rows * spacing[1], columns * spacing[0], normal * step
    affine[:3, 3] = positions[lowest]
    grid = placed(Header(NAME, size, np.dtype(np.uint8), affine, ())).grid
    return grid, tuple(int(place) for place in places)
