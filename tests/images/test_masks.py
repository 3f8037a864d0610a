"""Which structure of a label map is meant, and masks on another grid of the same space."""

from pathlib import Path

import pytest
import torch

from crossalign.errors import ImageError, InputWarning
from crossalign.geometry import Grid
from crossalign.images import Image, LabelMap, on_grid_of, one_structure, read_mask, write_image, write_label_map

GRID = Grid((12, 14, 16), (2.0, 2.0, 2.0), (10.0, -20.0, 30.0))


def labelled(*values: int) -> LabelMap:
    labels = torch.zeros(GRID.shape, dtype=torch.int64)
    for place, value in enumerate(values):
        labels[4, 4 + place, 4 : 6 + place] = value
    return LabelMap(labels, GRID, "zones.nii.gz")


def scan(grid: Grid = GRID) -> Image:
    return Image(torch.rand(grid.shape, generator=torch.Generator().manual_seed(1)), grid, "mr.nii.gz")


@pytest.mark.parametrize("value", [1, 7, 255, -3])
def test_one_label_of_any_value_is_the_structure(value: int) -> None:
    mask = labelled(value)
    assert one_structure(mask) is mask
    assert torch.equal(one_structure(mask, value).labels, mask.labels)


def test_several_labels_are_listed_with_their_voxels_and_refused() -> None:
    with pytest.raises(ImageError, match=r"1 \(2 voxels\), 5 \(3 voxels\): several labels.*--mask-label N"):
        one_structure(labelled(1, 5))
    many = labelled(1)
    many.labels[0] = torch.arange(14 * 16).reshape(14, 16)
    with pytest.raises(ImageError, match="and 211 more"):
        one_structure(many)


def test_a_label_is_chosen_from_a_file(tmp_path: Path) -> None:
    write_label_map(labelled(1, 5, 9), tmp_path / "zones.nii.gz")
    assert torch.equal(read_mask(tmp_path / "zones.nii.gz", 5).labels, torch.where(labelled(1, 5, 9).labels == 5, 5, 0))
    both = read_mask(tmp_path / "zones.nii.gz", [9, 1]).labels
    assert torch.equal(both != 0, (labelled(1, 5, 9).labels == 9) | (labelled(1, 5, 9).labels == 1))
    assert set(both.unique().tolist()) == {0, 9}  # one structure


def test_a_label_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ImageError, match=r"holds no label 2: holds the labels 1 \(2 voxels\), 5"):
        one_structure(labelled(1, 5), 2)
    with pytest.raises(ImageError, match=r"holds no label 2: holds the label 1 \(2 voxels\)"):
        one_structure(labelled(1), 2)
    with pytest.raises(ImageError, match="label 0 is the background"):
        one_structure(labelled(1), 0)


def test_a_probability_map_is_refused_with_advice(tmp_path: Path) -> None:
    write_image(Image(labelled(1).labels * 0.7, GRID), tmp_path / "p.nii.gz")
    with pytest.raises(ImageError, match="probability map, threshold it"):
        read_mask(tmp_path / "p.nii.gz")


def test_whole_numbers_as_floats_pass(tmp_path: Path) -> None:
    write_image(Image(labelled(1).labels.float(), GRID), tmp_path / "m.nii.gz")
    assert torch.equal(read_mask(tmp_path / "m.nii.gz").labels, labelled(1).labels)


def stored_otherwise(mask: LabelMap) -> LabelMap:
    """The same voxels with x backwards and y and z exchanged."""
    x, y, z = mask.grid.to_physical(torch.tensor([[mask.grid.shape[2] - 1.0, 0, 0]], dtype=torch.float64))[0].tolist()
    direction = ((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0))
    shape = (mask.grid.shape[1], mask.grid.shape[0], mask.grid.shape[2])
    grid = Grid(shape, (2.0, 2.0, 2.0), (x, y, z), direction)
    return LabelMap(mask.labels.permute(1, 0, 2).flip(-1), grid, mask.name)


def test_the_same_voxels_in_another_order_are_brought_exactly() -> None:
    mask = labelled(1)
    with pytest.warns(InputWarning, match="exact"):
        brought = on_grid_of(stored_otherwise(mask), scan())
    assert torch.equal(brought.labels, mask.labels)
    assert brought.grid.agrees_with(GRID)
    assert on_grid_of(mask, scan()) is mask


def test_a_mask_cut_to_its_structure_is_brought_exactly() -> None:
    mask = labelled(1)
    corner = GRID.to_physical(torch.tensor([[3.0, 3, 3]], dtype=torch.float64))[0].tolist()
    cut = LabelMap(mask.labels[3:7, 3:9, 3:10], Grid((4, 6, 7), (2.0, 2.0, 2.0), tuple(corner)), "cut.nii.gz")
    with pytest.warns(InputWarning, match="exact"):
        assert torch.equal(on_grid_of(cut, scan()).labels, mask.labels)


def test_another_spacing_takes_the_nearest_voxel() -> None:
    fine = Grid((24, 28, 32), (1.0, 1.0, 1.0), (9.5, -20.5, 29.5))
    inside = (fine.points_mm() - GRID.center_mm()).norm(dim=-1) < 8
    with pytest.warns(InputWarning, match="nearest voxel"):
        brought = on_grid_of(LabelMap(inside.long(), fine, "fine.nii.gz"), scan())
    expected = (GRID.points_mm() - GRID.center_mm()).norm(dim=-1) < 8
    assert ((brought.labels != 0) != expected).double().mean() < 0.02


def test_two_roundings_of_one_header_are_one_grid() -> None:
    moved = Grid(GRID.shape, GRID.spacing_mm, (10.05, -20.0, 30.0))
    with pytest.warns(InputWarning, match="resampled"):
        assert torch.equal(on_grid_of(LabelMap(labelled(1).labels, moved), scan()).labels, labelled(1).labels)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (Grid(GRID.shape, (1.8, 1.8, 1.8), GRID.origin_mm), "same number of voxels.*apply identity"),
        (Grid((6, 7, 8), (4.0, 4.0, 4.0), (500.0, 0.0, 0.0)), "only 0% of its structure lies in it"),
    ],
    ids=["the image's size elsewhere", "elsewhere"],
)
def test_what_cannot_be_of_this_image_is_refused(grid: Grid, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        on_grid_of(LabelMap(torch.ones(grid.shape, dtype=torch.int64), grid, "m.nii.gz"), scan())


def test_a_structure_that_is_cut_off_is_told() -> None:
    wide = Grid((6, 7, 10), (4.0, 4.0, 4.0), (11.0, -19.0, 31.0))
    with pytest.warns(InputWarning, match="20% of its structure lies outside"):
        on_grid_of(LabelMap(torch.ones(wide.shape, dtype=torch.int64), wide, "m.nii.gz"), scan())


def test_a_structure_between_the_voxels_is_refused() -> None:
    fine = Grid((8, 8, 8), (0.2, 0.2, 0.2), (10.3, -19.7, 30.3))
    labels = torch.ones(fine.shape, dtype=torch.int64)
    with pytest.raises(ImageError, match="all miss the structure"):
        on_grid_of(LabelMap(labels[:3, :3, :3], Grid((3, 3, 3), fine.spacing_mm, (10.7, -19.3, 30.7))), scan())
