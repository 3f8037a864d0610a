"""Segmentations of 3D Slicer (.seg.nrrd): NRRD whose header names segments, in layers where they overlap.

The image is cropped to what is segmented. Its place is that of its own header; `ReferenceImageExtentOffset` only says
where the crop lay among the voxels of the image that was segmented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images.files.formats.header import Header, header_lines
from crossalign.images.files.formats.nrrd import is_nrrd, read_layered_nrrd_header
from crossalign.images.files.formats.placement import Placement, placed, straightened
from crossalign.images.files.formats.voxels import read_labels
from crossalign.images.files.structures import Structure
from crossalign.images.image import LabelMap
from crossalign.images.memory import check_memory
from crossalign.input import excerpt

HEAD_BYTES = 64
SEGMENT = re.compile(r"Segment([0-9]{1,5})_(ID|Name|LabelValue|Layer)")
LAYER_LIMIT = 10_000


@dataclass(frozen=True)
class Segment:
    """Where a structure stands: voxels of `value` in a layer."""

    structure: Structure
    layer: int
    value: int


@dataclass(frozen=True, eq=False)
class SlicerSegmentation:
    """A segmentation of 3D Slicer whose header was read."""

    header: Header
    layers: int
    segments: tuple[Segment, ...]
    placement: Placement
    space: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.header.name

    @property
    def structures(self) -> tuple[Structure, ...]:
        """Its segments by name and number."""
        return tuple(segment.structure for segment in self.segments)

    def drawn(self, numbers: Sequence[int], image: Grid | None) -> list[LabelMap]:  # noqa: ARG002 - it has its own grid
        """Read some segments, each as a label map of 0 and 1."""
        by_number = {segment.structure.number: segment for segment in self.segments}
        x, y, z = self.header.size
        layers = read_labels(self.header).reshape(z, y, x // self.layers, self.layers)
        maps = []
        for number in numbers:
            segment = by_number[number]
            marked = (layers[..., segment.layer] == segment.value).astype(layers.dtype)
            values = torch.from_numpy(straightened(marked, self.placement, 0.0, nearest=True))
            maps.append(LabelMap(values, self.placement.grid, self.name))
        return maps


def is_slicer_segmentation(path: Path, first: bytes) -> bool:
    """Say whether a file is NRRD and its header names segments."""
    return is_nrrd(first) and bool(_entries(path, excerpt(path.name, 255)))


def read_slicer_segmentation(path: Path, memory_limit_bytes: int | None = None) -> SlicerSegmentation:
    """Read the header of a segmentation of 3D Slicer; raises ImageError."""
    name = excerpt(path.name, 255)
    header, layers = read_layered_nrrd_header(path, name)
    if not 1 <= layers <= LAYER_LIMIT:
        raise ImageError(f"{name}: {layers} layers in a segmentation: the header is damaged")
    check_memory(header.size, name, memory_limit_bytes)
    x, y, z = header.size
    segments = _segments(_entries(path, name), layers, name)
    if (x // layers, y, z) == (1, 1, 1):
        raise ImageError(f"{name}: the segmentation is empty: draw the structure in 3D Slicer, and save it again")
    return SlicerSegmentation(header, layers, segments, placed(replace(header, size=(x // layers, y, z))))


def _entries(path: Path, name: str) -> dict[int, dict[str, str]]:
    """Return what the header says of each segment, by its index."""
    found: dict[int, dict[str, str]] = {}
    for line, _ in header_lines(path, name):
        if not line:
            break
        key, separator, value = line.partition(":=")
        match = SEGMENT.fullmatch(key.strip()) if separator else None
        if match is not None:
            found.setdefault(int(match[1]), {})[match[2]] = value.strip()
    return found


def _segments(entries: Mapping[int, Mapping[str, str]], layers: int, name: str) -> tuple[Segment, ...]:
    """Give the segments numbers: their label values, or their order where layers use one value again."""
    read = []
    for index, entry in sorted(entries.items()):
        value, layer = (entry.get(key, default) for key, default in (("LabelValue", "1"), ("Layer", str(index))))
        if not (value.isascii() and value.isdigit() and len(value) < 10 and layer.isascii() and layer.isdigit()):
            raise ImageError(f"{name}: segment {index} has no label value or layer that is a number: mend the header")
        place = int(layer) if "Layer" in entry else min(index, layers - 1)  # earlier versions: a layer for each segment
        if place >= layers:
            raise ImageError(f"{name}: segment {index} is said to lie in layer {place} of {layers}: mend the header")
        read.append((entry.get("Name") or entry.get("ID", ""), place, int(value)))
    own = len({value for _, _, value in read}) == len(read)
    return tuple(
        Segment(Structure(value if own else count, text), layer, value)
        for count, (text, layer, value) in enumerate(read, 1)
    )
