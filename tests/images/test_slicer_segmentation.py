"""Segmentations of 3D Slicer: names, layers and crops, in files made as its documentation lays them out."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from crossalign.errors import ImageError, InputWarning
from crossalign.geometry import Grid
from crossalign.images import Image, on_grid_of, read_label_map, read_mask

GRID = Grid((9, 10, 11), (0.5, 0.75, 2.0), (-3.0, 4.0, 10.0))
FIRST = (2, 3, 4)  # of the crop among the image's voxels, (z, y, x)
GLAND, LESION = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.uint8)
GLAND[:, 1:4, 1:5], LESION[1:3, 2:3, 2:4] = 1, 1


def whole(crop: NDArray[np.uint8]) -> NDArray[np.bool_]:
    image = np.zeros(GRID.shape, bool)
    z, y, x = FIRST
    image[z : z + 4, y : y + 5, x : x + 6] = crop != 0
    return image


def write(path: Path, voxels: NDArray[np.uint8], segments: list[dict[str, object]], space: str = "LPS") -> Path:
    """Write voxels (z, y, x), or with a layer axis last, as 3D Slicer does: cropped, the origin that of the crop."""
    layers = voxels.shape[3:]
    sign = np.array([1, 1, 1] if space == "LPS" else [-1, -1, 1])
    origin = (GRID.to_physical(torch.tensor([FIRST[::-1]], dtype=torch.float64))[0].numpy()) * sign
    steps = np.diag(GRID.spacing_mm) * sign
    long = {"LPS": "left-posterior-superior", "RAS": "right-anterior-superior"}[space]
    directions = " ".join("(" + ",".join(f"{value:g}" for value in step) + ")" for step in steps)
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "type: unsigned char",
        f"dimension: {voxels.ndim}",
        f"space: {long}",
        "sizes: " + " ".join(str(n) for n in (*layers, *voxels.shape[2::-1])),
        f"space directions: {'none ' if layers else ''}{directions}",
        f"kinds: {'list ' if layers else ''}domain domain domain",
        "encoding: gzip",
        "space origin: (" + ",".join(f"{value:g}" for value in origin) + ")",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=" + " ".join(str(n) for n in FIRST[::-1]),
    ]
    for index, segment in enumerate(segments):
        lines += [f"Segment{index}_{key}:={value}" for key, value in ({"ID": f"Segment_{index + 1}"} | segment).items()]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + gzip.compress(voxels.tobytes()))
    return path


LAYERED = [
    {"Name": "Gland", "LabelValue": 1, "Layer": 0, "Extent": "0 5 0 4 0 3"},
    {"Name": "Lesion", "LabelValue": 1, "Layer": 1, "Extent": "0 5 0 4 0 3"},
]
IMAGE = Image(torch.rand(GRID.shape), GRID, "scan")


@pytest.mark.parametrize("space", ["LPS", "RAS"])
def test_layers_are_chosen_by_name_and_lie_where_the_crop_lay(space: str, tmp_path: Path) -> None:
    path = write(tmp_path / "Segmentation.seg.nrrd", np.stack((GLAND, LESION), -1), LAYERED, space)
    for label, crop in (("Gland", GLAND), ("lesion", LESION), (2, LESION), ("1,2", GLAND | LESION)):
        mask = read_mask(path, label)
        assert np.array_equal(mask.labels, crop)
        with pytest.warns(InputWarning, match=r"Segmentation.seg.nrrd: the mask was stored on another grid .*\(exact"):
            assert np.array_equal(on_grid_of(mask, IMAGE).labels != 0, whole(crop))
    with pytest.raises(ImageError, match="it holds 1 'Gland', 2 'Lesion': several structures, expected one"):
        read_mask(path)
    with pytest.raises(ImageError, match="its structures overlap"):
        read_label_map(path)


def test_one_layer_has_its_label_values(tmp_path: Path) -> None:
    segments = [{"Name": "Gland", "LabelValue": 4, "Layer": 0}, {"Name": "Lesion", "LabelValue": 7, "Layer": 0}]
    labels = np.where(LESION == 1, 7, GLAND * 4).astype(np.uint8)
    path = write(tmp_path / "s.seg.nrrd", labels, segments)
    assert np.array_equal(read_label_map(path).labels, labels)
    for label in (7, "7", "Lesion"):
        assert np.array_equal(read_mask(path, label).labels, LESION)
    assert np.array_equal(read_mask(path, (4, 7)).labels, GLAND)


def test_an_earlier_file_has_a_layer_for_each_segment(tmp_path: Path) -> None:
    segments: list[dict[str, object]] = [{"Name": "Gland"}, {"Name": "Lesion"}]
    path = write(tmp_path / "s.seg.nrrd", np.stack((GLAND, LESION), -1), segments)
    assert np.array_equal(read_mask(path, "Lesion").labels, LESION)


BAD = {
    "a layer too many": ([LAYERED[0], LAYERED[1] | {"Layer": 2}], "segment 1 is said to lie in layer 2 of 2"),
    "no number": ([LAYERED[0] | {"LabelValue": "one"}], "segment 0 has no label value or layer that is a number"),
    "an empty segment": ([LAYERED[0] | {"LabelValue": 9}], "the structure is empty"),
}


@pytest.mark.parametrize(("segments", "message"), BAD.values(), ids=BAD)
def test_wrong_headers_are_refused(segments: list[dict[str, object]], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "s.seg.nrrd", np.stack((GLAND, LESION), -1), segments)
    with pytest.raises(ImageError, match=message):
        read_mask(path)


def test_a_truncated_file_and_a_segmentation_of_nothing_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.seg.nrrd", np.stack((GLAND, LESION), -1), LAYERED)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ImageError, match="damaged or truncated"):
        read_mask(path, "Gland")
    with pytest.raises(ImageError, match="the segmentation is empty"):
        read_mask(write(tmp_path / "s.seg.nrrd", np.zeros((1, 1, 1), np.uint8), LAYERED[:1]))
