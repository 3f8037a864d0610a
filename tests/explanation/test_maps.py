"""Where maps land: on the fixed and the moving grid, by SimpleITK and by the networks themselves."""

import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.explanation import planted
from tests.geometry.strategies import rigids, rotations
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.explanation.attention import attention_blocks, position_grid
from crossalign.explanation.maps import crop_map, mask_on_crop, spread
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, read_image, write_image
from crossalign.networks import AttentionReg, CorrespondenceReg, build_network

CROP = Grid.centered((20.0, -35.0, 60.0), (8, 10, 12), (2.5, 2.5, 2.5))


def oblique(turn: Tensor, center: Tensor, spacing_mm: float = 1.0) -> Grid:
    rows = turn.double().tolist()
    direction = (tuple(rows[0]), tuple(rows[1]), tuple(rows[2]))
    plain = Grid((40, 44, 48), (spacing_mm,) * 3, (0.0, 0.0, 0.0), direction)
    x, y, z = (center - plain.center_mm()).tolist()
    return Grid(plain.shape, plain.spacing_mm, (x, y, z), direction)


@settings(max_examples=10)
@given(index=st.tuples(st.integers(1, 10), st.integers(1, 8), st.integers(1, 6)), turn=rotations())
def test_a_planted_value_lands_where_itk_says(tmp_path_factory, index: tuple[int, int, int], turn: Tensor) -> None:
    values = torch.zeros(CROP.shape)
    values[index[::-1]] = 3.0
    shown = crop_map(("one", "one", "fixed"), values, CROP, "mm")
    path = tmp_path_factory.mktemp("map") / "map.nii.gz"
    write_image(shown.on_fixed(oblique(turn, CROP.center_mm())), path)
    image = sitk.ReadImage(str(path))
    one = CROP.to_physical(torch.tensor([index], dtype=torch.float64))[0].tolist()
    at = image.TransformPhysicalPointToIndex(one)
    found = sitk.GetArrayFromImage(image)
    z, y, x = (int(i) for i in divmod_index(int(found.argmax()), found.shape))
    assert max(abs(a - b) for a, b in zip(at, (x, y, z), strict=True)) <= 1  # a voxel of 1 mm in a cell of 2.5 mm
    assert image.GetPixel(at) > 0.5
    assert shown.peak == 3.0
    assert 0 <= found.min() <= found.max() <= 1


def divmod_index(flat: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
    rest, x = divmod(flat, shape[2])
    z, y = divmod(rest, shape[1])
    return z, y, x


@settings(max_examples=10)
@given(start=rigids())
def test_both_grids_show_one_map(start: Rigid) -> None:
    """The value at a point of the fixed grid is that of the moving grid where the start puts the point."""
    lattice = CROP.points_mm() - CROP.center_mm()
    smooth = torch.exp(-(lattice / 8).square().sum(-1)).float()
    shown = crop_map(("one", "one", "moving"), smooth, CROP, "mm")
    fixed = oblique(torch.eye(3), CROP.center_mm())
    middle = start.apply(CROP.center_mm()[None])[0]
    moving = shown.on_moving(oblique(torch.eye(3), middle), start)
    back = moving.resampled(fixed, start, fill=0.0).voxels
    inside = (fixed.points_mm() - CROP.center_mm()).norm(dim=-1) < 8
    assert float((back - shown.on_fixed(fixed).voxels)[inside].abs().max()) < 0.05


def test_outside_the_crop_there_is_nothing() -> None:
    shown = crop_map(("one", "one", "fixed"), torch.ones(CROP.shape), CROP, "mm")
    grid = oblique(torch.eye(3), CROP.center_mm() + 0.1)  # no voxel lies just on the crop's rim
    inside = CROP.contains(grid.points_mm().flatten(0, 2)).reshape(grid.shape)
    torch.testing.assert_close(shown.on_fixed(grid).voxels, inside.float())


@pytest.mark.parametrize("name", ["attention-reg", "correspondence"])
def test_positions_lie_where_the_extractor_looks(name: str) -> None:
    """The middle of the voxels that a position's features depend on, by autograd; correspondence says where itself."""
    crop = Grid.centered((0.0, 0.0, 0.0), (16, 32, 32), (1.0, 1.0, 1.0))
    model = build_network(name, crop.shape, 1.0).eval()
    positions = position_grid(model, crop)
    if isinstance(model, CorrespondenceReg):
        torch.testing.assert_close(positions.points_mm().flatten(0, 2).float(), model.places_mm)
        return
    assert isinstance(model, AttentionReg)
    for at in ((3, 3, 4), (4, 4, 2)):
        lowest, highest = reach(model.fixed_extractor, crop, at)
        one = positions.to_physical(torch.tensor([at[::-1]], dtype=torch.float64))
        middle = crop.to_physical(torch.tensor([[(a + b) / 2 for a, b in zip(lowest, highest, strict=True)]]).double())
        torch.testing.assert_close(one, middle)


def reach(extractor: nn.Module, crop: Grid, at: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """The first and the last voxel (x, y, z) on which a position's features depend, over several drawn volumes."""
    generator = torch.Generator().manual_seed(0)
    touched = torch.zeros(crop.shape, dtype=torch.bool)
    for _ in range(6):
        volume = torch.randn(1, 1, *crop.shape, generator=generator).requires_grad_()
        features = extractor(volume)
        (slope,) = torch.autograd.grad(features[0, :, at[0], at[1], at[2]].sum(), volume)
        touched |= slope[0, 0] != 0
    index = touched.nonzero().flip(-1)
    return index.amin(0).tolist(), index.amax(0).tolist()


def test_spreading_keeps_the_positions_values_and_reaches_the_rim() -> None:
    crop = Grid.centered((0.0, 0.0, 0.0), (8, 16, 16), (1.0, 1.0, 1.0))
    positions = position_grid(AttentionReg(crop.shape), crop)
    values = torch.rand(positions.shape, generator=torch.Generator().manual_seed(0))
    shown = spread(values, positions, crop)
    torch.testing.assert_close(shown[::2, ::4, ::4], values)
    torch.testing.assert_close(shown[-1, -1, -1], values[-1, -1, -1])
    assert bool((shown >= values.min()).all())


def test_a_map_of_nothing_stays_nothing() -> None:
    shown = crop_map(("none", "none", "fixed"), torch.zeros(CROP.shape), CROP, "mm")
    assert shown.peak == 0.0
    assert not shown.image.voxels.any()
    assert torch.isnan(torch.tensor(shown.fraction_inside(torch.ones(CROP.shape, dtype=torch.bool))))


def test_share_inside_a_mask() -> None:
    mask = LabelMap((CROP.points_mm()[..., 0] > 20).long(), CROP)
    inside = mask_on_crop(mask, CROP)
    assert inside is not None
    assert crop_map(("a", "a", "fixed"), torch.ones(CROP.shape), CROP, "").fraction_inside(inside) == pytest.approx(0.5)
    assert mask_on_crop(None, CROP) is None


def test_networks_without_attention_have_no_positions() -> None:
    model = build_network("feature-reg", (8, 8, 8))
    assert attention_blocks(model) == ()
    with pytest.raises(InputError, match="has no attention: give the weights of attention-reg and correspondence"):
        position_grid(model, CROP)


def test_files_round_trip_as_float32(tmp_path) -> None:
    values = torch.rand(CROP.shape, generator=torch.Generator().manual_seed(3))
    shown = crop_map(("a", "a", "fixed"), values, CROP, "")
    write_image(shown.on_fixed(CROP), tmp_path / "a.nii.gz")
    read = read_image(tmp_path / "a.nii.gz")
    assert isinstance(read, Image)
    torch.testing.assert_close(read.voxels, values / values.max())
    assert sitk.ReadImage(str(tmp_path / "a.nii.gz")).GetPixelID() == sitk.sitkFloat32


def test_blocks_have_words() -> None:
    words = [block.title for block in attention_blocks(build_network("correspondence", (8, 8, 8)))]
    assert words[0] == "attention block of the fixed side, round 1"
    assert words[-1] == "attention block of the moving side, round 2"
    names = [block.title for block in attention_blocks(planted.untrained("attention-reg", 0))]
    assert names == ["attention block of the fixed side", "attention block of the moving side"]
