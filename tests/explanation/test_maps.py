"""Where maps land: on the fixed and the moving grid, by SimpleITK and by the networks themselves."""

import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.explanation import planted
from tests.geometry.strategies import rigids, rotations
from torch import Tensor, nn

from crossalign.explanation.crops import CropMap, interpolate_tokens, mask_on_crop
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, read_image, write_image
from crossalign.networks import AttentionReg, CorrespondenceReg, build_network
from crossalign.networks.capabilities import shown_attention

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
    one_map = CropMap.of(values, CROP, ("one", "one", "fixed"), "mm")
    path = tmp_path_factory.mktemp("map") / "map.nii.gz"
    write_image(one_map.on_fixed(oblique(turn, CROP.center_mm())), path)
    image = sitk.ReadImage(str(path))
    position = CROP.to_physical(torch.tensor([index], dtype=torch.float64))[0].tolist()
    at = image.TransformPhysicalPointToIndex(position)
    found = sitk.GetArrayFromImage(image)
    z, y, x = (int(i) for i in divmod_index(int(found.argmax()), found.shape))
    assert max(abs(a - b) for a, b in zip(at, (x, y, z), strict=True)) <= 1  # a voxel of 1 mm in a cell of 2.5 mm
    assert image.GetPixel(at) > 0.5
    assert one_map.peak == 3.0
    assert 0 <= found.min() <= found.max() <= 1


def divmod_index(flat: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
    rest, x = divmod(flat, shape[2])
    z, y = divmod(rest, shape[1])
    return z, y, x


@settings(max_examples=10)
@given(initial=rigids())
def test_both_grids_show_one_map(initial: Rigid) -> None:
    """The value at a point of the fixed grid is that of the moving grid where the initial transform puts the point."""
    offsets = CROP.points_mm() - CROP.center_mm()
    smooth = torch.exp(-(offsets / 8).square().sum(-1)).float()
    one_map = CropMap.of(smooth, CROP, ("one", "one", "moving"), "mm")
    fixed = oblique(torch.eye(3), CROP.center_mm())
    middle = initial.apply(CROP.center_mm()[None])[0]
    moving = one_map.on_moving(oblique(torch.eye(3), middle), initial)
    back = moving.resampled(fixed, initial, fill=0.0).voxels
    inside = (fixed.points_mm() - CROP.center_mm()).norm(dim=-1) < 8
    assert float((back - one_map.on_fixed(fixed).voxels)[inside].abs().max()) < 0.05


def test_outside_the_crop_there_is_nothing() -> None:
    one_map = CropMap.of(torch.ones(CROP.shape), CROP, ("one", "one", "fixed"), "mm")
    grid = oblique(torch.eye(3), CROP.center_mm() + 0.1)  # no voxel lies just on the crop's border
    inside = CROP.contains(grid.points_mm().flatten(0, 2)).reshape(grid.shape)
    torch.testing.assert_close(one_map.on_fixed(grid).voxels, inside.float())


@pytest.mark.parametrize("name", ["attention-reg", "correspondence"])
def test_tokens_lie_in_the_middle_of_what_they_depend_on(name: str) -> None:
    """The middle of the voxels that a token's features depend on, by autograd; correspondence says where itself."""
    crop = Grid.centered((0.0, 0.0, 0.0), (16, 32, 32), (1.0, 1.0, 1.0))
    model = build_network(name, crop.shape, 1.0).eval()
    network = shown_attention(model)
    assert network is not None
    tokens = network.token_grid().on(crop)
    if isinstance(model, CorrespondenceReg):
        torch.testing.assert_close(tokens.points_mm().flatten(0, 2).float(), model.positions_mm)
        return
    assert isinstance(model, AttentionReg)
    for at in ((3, 3, 4), (4, 4, 2)):
        lowest, highest = reach(model.fixed_extractor, crop, at)
        position = tokens.to_physical(torch.tensor([at[::-1]], dtype=torch.float64))
        middle = crop.to_physical(torch.tensor([[(a + b) / 2 for a, b in zip(lowest, highest, strict=True)]]).double())
        torch.testing.assert_close(position, middle)


def reach(extractor: nn.Module, crop: Grid, at: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """The first and the last voxel (x, y, z) on which a token's features depend, over several drawn volumes."""
    generator = torch.Generator().manual_seed(0)
    touched = torch.zeros(crop.shape, dtype=torch.bool)
    for _ in range(6):
        volume = torch.randn(1, 1, *crop.shape, generator=generator).requires_grad_()
        features = extractor(volume)
        (slope,) = torch.autograd.grad(features[0, :, at[0], at[1], at[2]].sum(), volume)
        touched |= slope[0, 0] != 0
    index = touched.nonzero().flip(-1)
    return index.amin(0).tolist(), index.amax(0).tolist()


def test_interpolation_keeps_the_tokens_values_and_extends_to_the_border() -> None:
    crop = Grid.centered((0.0, 0.0, 0.0), (8, 16, 16), (1.0, 1.0, 1.0))
    tokens = AttentionReg(crop.shape).token_grid().on(crop)
    values = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0))
    found = interpolate_tokens(values, tokens, crop)
    torch.testing.assert_close(found[::2, ::4, ::4], values)
    torch.testing.assert_close(found[-1, -1, -1], values[-1, -1, -1])
    assert bool((found >= values.min()).all())


def test_a_map_of_nothing_stays_nothing() -> None:
    one_map = CropMap.of(torch.zeros(CROP.shape), CROP, ("none", "none", "fixed"), "mm")
    assert one_map.peak == 0.0
    assert not one_map.image.voxels.any()
    assert torch.isnan(torch.tensor(one_map.fraction_inside(torch.ones(CROP.shape, dtype=torch.bool))))


def test_fraction_inside_a_mask() -> None:
    mask = LabelMap((CROP.points_mm()[..., 0] > 20).long(), CROP)
    inside = mask_on_crop(mask, CROP)
    assert inside is not None
    assert CropMap.of(torch.ones(CROP.shape), CROP, ("a", "a", "fixed"), "").fraction_inside(inside) == pytest.approx(
        0.5
    )
    assert mask_on_crop(None, CROP) is None


def test_files_round_trip_as_float32(tmp_path) -> None:
    values = torch.rand(CROP.shape, generator=torch.Generator().manual_seed(3))
    one_map = CropMap.of(values, CROP, ("a", "a", "fixed"), "")
    write_image(one_map.on_fixed(CROP), tmp_path / "a.nii.gz")
    read = read_image(tmp_path / "a.nii.gz")
    assert isinstance(read, Image)
    torch.testing.assert_close(read.voxels, values / values.max())
    assert sitk.ReadImage(str(tmp_path / "a.nii.gz")).GetPixelID() == sitk.sitkFloat32


def test_blocks_have_words() -> None:
    titles = {}
    for name in ("correspondence", "attention-reg"):
        network = shown_attention(planted.untrained(name, 0))
        assert network is not None
        titles[name] = [block.title for block in network.attention_blocks()]
    assert titles["correspondence"][0] == "attention block of the fixed side, layer 1"
    assert titles["correspondence"][-1] == "attention block of the moving side, layer 2"
    assert titles["attention-reg"] == ["attention block of the fixed side", "attention block of the moving side"]
