"""Masks from DICOM: segmentations that highdicom wrote, and contours, against scikit-image and real label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from skimage.draw import polygon2mask
from tests.images.dicom_files import IDENTITY, ORIGIN, ROOT, SPACING, STEP, item, save, structure_set, write_series

from crossalign.errors import ImageError, InputWarning
from crossalign.geometry import Grid
from crossalign.images import Image, LabelMap, on_grid_of, read_image, read_label_map, read_mask
from crossalign.images.files.dicom.contours import filled

SHAPE = (6, 9, 8)
VOXELS = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.int16)
GRID = Grid(SHAPE, (SPACING[1], SPACING[0], STEP), ORIGIN)
PROSTATE, LESION = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
PROSTATE[1:4, 2:7, 1:6], LESION[2:5, 3:5, 2:4] = True, True  # they overlap
PROSTATE[2] = False  # an empty slice in between, which a segmentation leaves out


def series(folder: Path) -> list[Any]:
    return [dcmread(path) for path in sorted(write_series(folder, VOXELS, InstanceNumber=1))]


def write_segmentation(folder: Path, masks: NDArray[Any], kind: str = "BINARY") -> Path:
    """Write a segmentation of two structures with highdicom; `masks` (z, y, x, 2), or labels (z, y, x)."""
    from highdicom.seg import Segmentation, SegmentDescription

    sources = sorted(series(folder / "image"), key=lambda one: float(one.ImagePositionPatient[2]))
    described = [
        SegmentDescription(number, label, codes.SCT.Organ, codes.SCT.Prostate, "MANUAL")
        for number, label in ((1, "Prostate"), (2, "Lesion of Mustermann"))
    ]
    names = ("maker", "model", "1", "1")
    written = Segmentation(sources, masks, kind, described, f"{ROOT}70", 70, f"{ROOT}71", 1, *names)
    folder = folder / "mask"
    folder.mkdir()
    written.save_as(folder / "seg")
    return folder / "seg"


BOTH = np.stack((PROSTATE, LESION), -1)


MEANT = (
    ("Prostate", PROSTATE),
    ("prost", PROSTATE),
    (1, PROSTATE),
    ("2", LESION),
    ([1, 2], PROSTATE | LESION),
    ("Prostate,2", PROSTATE | LESION),
)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_segments_are_read_by_name_and_number(kind: str, tmp_path: Path) -> None:
    path = write_segmentation(tmp_path, BOTH.astype(np.uint8) if kind == "BINARY" else BOTH * 0.6, kind)
    image = read_image(tmp_path / "image")
    for label, expected in MEANT:
        for place in path, path.parent:
            mask = read_mask(place, label)
            assert mask.name == "SEG"
            with pytest.warns(InputWarning, match=r"SEG: the mask was stored on another grid.*MR series 1 \(exact"):
                on_image = on_grid_of(mask, image)
            assert np.array_equal(on_image.labels != 0, expected)


def test_segments_that_are_not_meant_are_listed_without_identity(tmp_path: Path) -> None:
    path = write_segmentation(tmp_path, BOTH.astype(np.uint8))
    for label, message in (
        (None, r"it holds 1 'Prostate', 2 'Lesion of \*\*\*': several structures, expected one: choose"),
        ("bladder", "holds no structure 'bladder': it holds 1 'Prostate'"),
        (3, "holds no structure '3'"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            read_mask(path, label)
        assert not [word for word in IDENTITY if word in str(caught.value)]
    with pytest.raises(ImageError, match="its structures overlap, which one label map cannot hold"):
        read_label_map(path)


def test_all_segments_make_a_label_map_where_they_do_not_overlap(tmp_path: Path) -> None:
    apart = np.stack((PROSTATE & ~LESION, LESION), -1).astype(np.uint8)
    labels = read_label_map(write_segmentation(tmp_path, apart))
    assert sorted(labels.labels.unique().tolist()) == [0, 1, 2]
    assert int((labels.labels == 2).sum()) == LESION.sum()


def square(low: float, high: float, depth: float) -> NDArray[np.float64]:
    """Corners, in voxels of the grid along x and y, at a slice; as points in mm."""
    corners = [(low, low), (high, low), (high, high), (low, high)]
    index = torch.tensor([[x, y, depth] for x, y in corners], dtype=torch.float64)
    return GRID.to_physical(index).numpy()


def write_contours(path: Path, **regions: list[NDArray[np.float64]]) -> Path:
    return save(structure_set(regions), path)


def test_contours_are_filled_by_the_even_odd_rule_on_the_slices_of_the_image(tmp_path: Path) -> None:
    write_series(tmp_path / "image", VOXELS)
    ring = [square(0.5, 6.5, 2), square(2.5, 4.5, 2), square(0.5, 3.5, 3)]
    path = write_contours(tmp_path / "contours", ring=ring, other=[square(1.5, 2.5, 1)])
    image = read_image(tmp_path / "image")
    mask = read_mask(path, "ring", image=image.grid)
    expected = np.zeros(SHAPE, bool)
    expected[2, 1:7, 1:7], expected[2, 3:5, 3:5], expected[3, 1:4, 1:4] = True, False, True
    assert np.array_equal(mask.labels != 0, expected)
    assert mask.grid.agrees_with(image.grid)
    assert on_grid_of(mask, image) is mask
    assert int(read_mask(path, 6, image=image.grid).labels.sum()) == 1
    with pytest.raises(ImageError, match=r"RTSTRUCT: it holds 5 'ring', 6 'other': several structures"):
        read_mask(path)


@settings(max_examples=25)
@given(data=st.data())
def test_filling_agrees_with_scikit_image(data: st.DataObject) -> None:
    grid = Grid((1, 14, 12), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    # Corners at places that no line through pixel centres meets, where the two may differ in what lies on the edge.
    places = st.integers(-2, 15).map(lambda n: n + 0.37)
    corners = data.draw(st.lists(st.tuples(places, places), min_size=3, max_size=9, unique=True))
    contour = np.array([(x, y + 0.11, 0.0) for x, y in corners])
    expected = polygon2mask((14, 12), contour[:, 1::-1])
    assert (filled([contour], grid)[0] != expected).sum() <= on_an_edge(contour)


def on_an_edge(contour: NDArray[np.float64]) -> int:
    """Count the pixel centres that lie on an edge, to rounding: on which side they fall is not defined."""
    y, x = np.meshgrid(np.arange(14.0), np.arange(12.0), indexing="ij")
    near = np.zeros((14, 12), bool)
    for begin, end in zip(contour[:, :2], np.roll(contour, -1, axis=0)[:, :2], strict=True):
        along, across = end - begin, np.stack((x - begin[0], y - begin[1]), -1)
        near |= np.abs(along[0] * across[..., 1] - along[1] * across[..., 0]) < 1e-9
    return int(near.sum())


def test_contours_of_another_image_are_resampled_with_a_note(tmp_path: Path) -> None:
    path = write_contours(tmp_path / "contours", gland=[square(1.5, 5.5, depth) for depth in (1, 2, 3)])
    fine = Grid((30, 40, 40), (0.5, 0.5, 0.7), (ORIGIN[0], ORIGIN[1], ORIGIN[2] - 0.1))
    image = Image(torch.rand(fine.shape), fine, "scan")
    with pytest.warns(InputWarning, match=r"RTSTRUCT: the mask was .* that of scan \(nearest voxel\)"):
        mask = on_grid_of(read_mask(path, image=image.grid), image)
    volume = float(mask.labels.sum()) * 0.5 * 0.5 * 0.7
    drawn = 16 * SPACING[0] * SPACING[1] * 3 * STEP
    assert volume == pytest.approx(drawn, rel=0.1)
    centre = GRID.to_physical(torch.tensor([[3.5, 3.5, 2.0]], dtype=torch.float64))[0]
    assert torch.allclose(mask.centroid_mm(), centre, atol=0.5)


def test_contours_of_another_frame_of_reference_are_used_with_a_warning(tmp_path: Path) -> None:
    write_series(tmp_path / "image", VOXELS)
    image = read_image(tmp_path / "image")
    for number, is_other in ((2, False), (9, True)):
        contours = structure_set({"gland": [square(1.5, 5.5, 2)]})
        contours.ReferencedFrameOfReferenceSequence = Items([item(FrameOfReferenceUID=f"{ROOT}{number}")])
        mask = read_mask(save(contours, tmp_path / "contours"), image=image.grid)
        if not is_other:
            assert on_grid_of(mask, image) is mask
            continue
        with pytest.warns(InputWarning, match="RTSTRUCT: the mask was drawn in another frame of reference") as caught:
            assert on_grid_of(mask, image) is mask
        assert ROOT not in str(caught[0].message) + repr(mask) + repr(image)


def test_contours_elsewhere_are_refused(tmp_path: Path) -> None:
    path = write_contours(tmp_path / "contours", gland=[square(1.5, 5.5, 1) + np.array([500.0, 0, 0])])
    image = Image(torch.rand(SHAPE), GRID, "scan")
    with pytest.raises(ImageError, match="only 0% of its structure lies in it: give the mask of this image"):
        on_grid_of(read_mask(path, image=GRID), image)


def test_contours_that_cross_the_border_keep_what_lies_outside_until_it_is_counted(tmp_path: Path) -> None:
    path = write_contours(tmp_path / "contours", gland=[square(4.5, 8.5, 2)])
    image = Image(torch.rand(SHAPE), GRID, "scan")
    mask = read_mask(path, image=GRID)
    assert int(mask.labels.sum()) == 16
    with pytest.warns(InputWarning, match="25% of its structure lies outside the image and was left out"):
        assert int(on_grid_of(mask, image).labels.sum()) == 12


BAD_CONTOURS: dict[str, tuple[dict[str, list[NDArray[np.float64]]], str]] = {
    "none": ({}, "holds no structure"),
    "without contours": ({"gland": []}, "the structure has no closed contour"),
    "too small": ({"gland": [square(2.1, 2.2, 1)]}, "the structure is empty"),
    "endless": ({"gland": [square(0, 4, 1) * 1e6]}, "over the limit"),
    "two points": ({"gland": [square(0, 4, 1)[:2]]}, "the structure has no closed contour"),
    "uneven": ({"gland": [square(0, 4, depth) for depth in (0, 1, 2, 3.4)]}, "slices that are not evenly spaced"),
    "not parallel": (
        {"gland": [square(0, 8, 1), square(0, 8, 1) @ np.eye(3)[[2, 1, 0]]]},
        "do not lie in parallel planes",
    ),
}


@pytest.mark.parametrize(("regions", "message"), BAD_CONTOURS.values(), ids=BAD_CONTOURS)
def test_contours_that_cannot_be_filled_are_refused(
    regions: dict[str, list[NDArray[np.float64]]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=message):
        read_mask(write_contours(tmp_path / "contours", **regions), image=GRID)


@pytest.mark.parametrize(("part", "mass"), [("MR_T1", "t1"), ("PET", "pet"), ("CT", "ct")])
def test_real_contours_are_the_masks_that_were_made_of_them(part: str, mass: str, shared_data: Path) -> None:
    folder = shared_data / "dicom" / "sts002" / part
    image = read_image(folder / "image")
    mask = read_mask(folder / "mask" / "RS.dcm", f"GTV_Mass_{part}", image=image.grid)
    expected = read_label_map(shared_data / "sts" / "sts002" / f"{mass}_mass.nii.gz")
    assert mask.grid.agrees_with(image.grid)
    assert mask.grid.agrees_with(expected.grid)
    assert torch.equal(mask.labels != 0, expected.labels != 0)
    scan = read_image(shared_data / "sts" / "sts002" / f"{mass}.nii.gz")
    assert torch.allclose(image.voxels, scan.voxels, atol=1e-4)
    assert image.unit == ("SUV" if part == "PET" else "")


def test_a_series_may_be_a_label_map(tmp_path: Path) -> None:
    write_series(tmp_path / "labels", PROSTATE.astype(np.uint8) * 3)
    assert torch.equal(read_mask(tmp_path / "labels", 3).labels, torch.from_numpy(PROSTATE * 3))
    write_series(tmp_path / "scan", VOXELS, RescaleSlope=0.3, RescaleIntercept=0)
    with pytest.raises(ImageError, match="a mask must hold whole numbers"):
        read_mask(tmp_path / "scan")


def test_several_files_of_structures_in_a_folder_are_listed(tmp_path: Path) -> None:
    write_contours(tmp_path / "a", gland=[square(1, 5, 1)])
    save(structure_set({"gland": [square(1, 5, 1)]}), tmp_path / "b", SeriesNumber=2, SeriesInstanceUID=f"{ROOT}77")
    with pytest.raises(ImageError, match=r"holds 2 files of structures \(1: RTSTRUCT; 2: RTSTRUCT\), expected one"):
        read_mask(tmp_path)


def test_a_name_needs_a_file_with_names(tmp_path: Path) -> None:
    from crossalign.images import write_label_map

    write_label_map(LabelMap(torch.from_numpy(PROSTATE).long(), GRID), tmp_path / "mask.nii.gz")
    with pytest.raises(ImageError, match=r"mask\.nii\.gz: its labels have no names, got 'gland', expected a number"):
        read_mask(tmp_path / "mask.nii.gz", "gland")
