"""Where a registration starts when nobody says."""

import re
from pathlib import Path

import pytest
import torch

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, read_image, read_mask
from crossalign.registration import choose_initialisation

FIXED = Grid.centered((10.0, 20.0, 30.0), (20, 20, 20), (4.0, 4.0, 4.0))


def scan(grid: Grid) -> Image:
    return Image(torch.rand(grid.shape, generator=torch.Generator().manual_seed(0)), grid)


def at(x: float, y: float, z: float, shape: tuple[int, int, int] = (20, 20, 20)) -> Image:
    return scan(Grid.centered((x, y, z), shape, (4.0, 4.0, 4.0)))


def structure(*voxel: int) -> LabelMap:
    labels = torch.zeros(FIXED.shape, dtype=torch.int64)
    x, y, z = voxel
    labels[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = 1
    return LabelMap(labels, FIXED)


def test_the_headers_are_believed_where_the_scans_overlap() -> None:
    start = choose_initialisation(scan(FIXED), at(20.0, 20.0, 30.0))
    assert start.name == "header"
    assert torch.equal(start.fixed_to_moving.matrix(), Rigid.identity().matrix())
    assert "88% of the smaller field of view" in start.reason


def test_a_slab_in_the_fixed_image_is_all_overlap() -> None:
    start = choose_initialisation(scan(FIXED), at(10.0, 20.0, 55.0, (3, 20, 20)))
    assert (start.name, "100%" in start.reason) == ("header", True)


@pytest.mark.parametrize(
    ("moving", "why"),
    [(at(500.0, 0.0, 0.0), "put the scans apart"), (at(80.0, 20.0, 30.0), "let only 1[0-9]% overlap")],
    ids=["apart", "at a corner"],
)
def test_without_overlap_the_centres_meet(moving: Image, why: str) -> None:
    start = choose_initialisation(scan(FIXED), moving)
    assert start.name == "center"
    assert re.search(why, start.reason)
    assert torch.allclose(start.fixed_to_moving.apply(FIXED.center_mm()[None])[0], moving.grid.center_mm())
    marked = choose_initialisation(scan(FIXED), moving, structure(4, 5, 6))
    assert marked.name == "mask-center"
    expected = structure(4, 5, 6).centroid_mm()[None]
    assert torch.allclose(marked.fixed_to_moving.apply(expected)[0], moving.grid.center_mm())


def test_a_structure_outside_the_moving_image_speaks_against_the_headers() -> None:
    moving = at(40.0, 20.0, 30.0)  # sees x from 0 to 80; the structure below lies at x = -20
    assert choose_initialisation(scan(FIXED), moving, structure(15, 10, 10)).name == "header"
    start = choose_initialisation(scan(FIXED), moving, structure(2, 10, 10))
    assert start.name == "mask-center"
    assert "0% of the structure" in start.reason


CORNER = Grid((20, 20, 20), (4.0, 4.0, 4.0), (-4.0, -4.0, 4.0), ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)))


def test_headers_that_count_from_their_own_corner_are_no_world() -> None:
    ultrasound = scan(Grid((12, 14, 16), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0), CORNER.direction))
    start = choose_initialisation(scan(CORNER), ultrasound)
    assert start.name == "center"  # all of the smaller lies in the other, by accident
    assert "both headers count from their own scan's corner" in start.reason
    start = choose_initialisation(scan(Grid.centered((0.0, 0.0, 0.0), (20, 20, 20), (4.0, 4.0, 4.0))), ultrasound)
    assert start.name == "center"
    assert "one header counts from its own scan's corner" in start.reason


@pytest.mark.parametrize(
    "moving",
    [
        scan(CORNER),
        scan(Grid((40, 40, 40), (2.0, 2.0, 2.0), (-3.0, -3.0, 3.0), CORNER.direction)),
        scan(Grid((5, 20, 20), (4.0, 4.0, 4.0), (-4.0, -4.0, 44.0), CORNER.direction)),
    ],
    ids=["one grid", "one field of view", "a part of the fixed image"],
)
def test_headers_from_one_corner_are_believed_for_one_field_of_view_and_its_parts(moving: Image) -> None:
    assert choose_initialisation(scan(CORNER), moving).name == "header"
    assert choose_initialisation(moving, scan(CORNER)).name == "header"


def test_real_mr_and_ultrasound_of_unrelated_worlds_start_at_the_gland(shared_data: Path) -> None:
    for case in sorted((shared_data / "mrus").glob("obs*"))[:3]:
        fixed, moving = read_image(case / "mr.nii.gz"), read_image(case / "us.nii.gz")
        assert choose_initialisation(fixed, moving, read_mask(case / "mr_gland.nii.gz")).name == "mask-center"
    for case in sorted((shared_data / "sts").glob("sts*"))[:3]:
        assert choose_initialisation(read_image(case / "t1.nii.gz"), read_image(case / "pet.nii.gz")).name == "header"
