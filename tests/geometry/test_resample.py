"""Resampling agrees with SimpleITK, border included, and undoes itself where it can."""

import pytest
import SimpleITK as sitk
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tests.geometry.strategies import grids, numbers, triples

from crossalign.geometry import Grid, Rigid, resample, sample

OBLIQUE = ((0.0, -0.6, 0.8), (1.0, 0.0, 0.0), (0.0, -0.8, -0.6))  # turned, axes exchanged, and mirrored


def noise(shape: tuple[int, int, int], seed: int = 0, channels: int = 1) -> torch.Tensor:
    return torch.rand(1, channels, *shape, generator=torch.Generator().manual_seed(seed))


def to_sitk(scan: torch.Tensor, grid: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(scan.numpy())
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    image.SetDirection([value for row in grid.direction for value in row])
    return image


def sitk_resample(
    scan: torch.Tensor, grid: Grid, target: Grid, rigid: Rigid, fill: float, nearest: bool
) -> torch.Tensor:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(rigid.rotation.flatten().tolist())
    transform.SetTranslation(rigid.translation_mm.tolist())
    reference = to_sitk(torch.zeros(target.shape), target)
    interpolator = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    moved = sitk.Resample(to_sitk(scan, grid), reference, transform, interpolator, fill, sitk.sitkFloat32)
    return torch.from_numpy(sitk.GetArrayFromImage(moved))


def apart_from_ties(grid: Grid, target: Grid, rigid: Rigid, nearest: bool) -> torch.Tensor:
    """Mask of the points where rounding in the last digit decides nothing: not on the border, nor halfway."""
    points_voxel = grid.to_voxel(rigid.apply(target.points_mm().reshape(-1, 3))).reshape(*target.shape, 3)
    size = torch.tensor(grid.shape[::-1], dtype=torch.float64)
    border = torch.minimum((points_voxel + 0.5).abs(), (points_voxel - size + 0.5).abs())
    halfway = (points_voxel - points_voxel.floor() - 0.5).abs()
    closest = torch.minimum(border, halfway) if nearest else border
    return (closest > 1e-6).all(dim=-1)


@given(
    grids(most=9),
    st.tuples(*[st.integers(1, 10)] * 3),
    triples(0.4, 3.0),
    triples(-25, 25),
    st.tuples(numbers(-40, 40), numbers(-40, 40), numbers(-40, 40)),
    st.booleans(),
    st.integers(0, 99),
)
def test_it_agrees_with_simpleitk(
    grid: Grid,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    shift_mm: tuple[float, float, float],
    angle_deg: tuple[float, float, float],
    nearest: bool,
    seed: int,
) -> None:
    x, y, z = grid.center_mm().tolist()
    around = Grid.centered((x, y, z), shape, spacing_mm)
    target = Grid(shape, spacing_mm, around.origin_mm, OBLIQUE)
    parameters = torch.tensor([*shift_mm, *angle_deg], dtype=torch.float64)
    rigid = Rigid.from_parameters(parameters, grid.center_mm())
    volume = noise(grid.shape, seed)
    ours = resample(volume, grid, target, rigid, fill=-7.0, nearest=nearest)[0, 0]
    theirs = sitk_resample(volume[0, 0], grid, target, rigid, -7.0, nearest)
    sound = apart_from_ties(grid, target, rigid, nearest)
    torch.testing.assert_close(ours[sound], theirs[sound], atol=1e-4, rtol=0)


@pytest.mark.parametrize("nearest", [False, True])
def test_most_of_an_oblique_pair_is_compared_and_agrees(nearest: bool) -> None:
    grid = Grid((20, 24, 28), (0.7, 1.1, 2.3), (-20.0, 35.0, 400.0), OBLIQUE)
    target = grid.covering((1.3, 0.9, 1.7))
    rigid = Rigid.from_parameters(torch.tensor([3.0, -4.0, 5.0, 12.0, -20.0, 33.0]).double(), grid.center_mm())
    volume = noise(grid.shape)
    ours = resample(volume, grid, target, rigid, fill=-1.0, nearest=nearest)[0, 0]
    theirs = sitk_resample(volume[0, 0], grid, target, rigid, -1.0, nearest)
    inside = ours >= 0
    assert 0.2 < inside.float().mean() < 0.9
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_the_border_value_holds_for_half_a_voxel_as_in_itk(nearest: bool, flip: float) -> None:
    direction = ((flip, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    grid = Grid((1, 1, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), direction)
    # 0.0625 is exact in binary, so both sides of the border and the halves themselves are sampled.
    target = Grid((1, 1, 81), (0.0625, 1.0, 1.0), (-1.5 * flip, 0.0, 0.0), direction)
    volume = torch.tensor([10.0, 20.0, 40.0]).reshape(1, 1, 1, 1, 3)
    ours = resample(volume, grid, target, fill=-1.0, nearest=nearest)[0, 0]
    theirs = sitk_resample(volume[0, 0], grid, target, Rigid.identity(), -1.0, nearest)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert ours[0, 0, [15, 16, 24]].tolist() == [-1, 10, 10], "just outside, on the outer face, on the first centre"
    assert ours[0, 0, [63, 64]].tolist() == [40, -1], "just inside the last face, and on it"


@given(grids(most=8))
@example(Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
def test_its_own_grid_gives_the_volume_back(grid: Grid) -> None:
    volume = noise(grid.shape, channels=2)
    torch.testing.assert_close(resample(volume, grid, grid), volume, atol=1e-5, rtol=0)
    torch.testing.assert_close(resample(volume, grid, grid, nearest=True), volume, atol=0, rtol=0)


@given(triples(-5, 5), triples(-20, 20))
def test_a_linear_ramp_is_sampled_exactly(
    shift_mm: tuple[float, float, float], angle_deg: tuple[float, float, float]
) -> None:
    grid = Grid((12, 14, 16), (1.5, 1.0, 2.0), (-7.0, 3.0, 11.0), OBLIQUE)
    slope = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    volume = (grid.points_mm() @ slope).float()[None, None]
    x, y, z = grid.center_mm().tolist()
    target = Grid.centered((x, y, z), (3, 3, 3), (0.6, 0.7, 0.8))
    parameters = torch.tensor([*shift_mm, *angle_deg], dtype=torch.float64) / 3
    rigid = Rigid.from_parameters(parameters, grid.center_mm())
    expected = (rigid.apply(target.points_mm().reshape(-1, 3)) @ slope).reshape(target.shape)
    torch.testing.assert_close(resample(volume, grid, target, rigid)[0, 0].double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("nearest", [False, True])
def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch, nearest: bool) -> None:
    grid = Grid((7, 6, 5), (1.0, 2.0, 1.5), (0.0, 0.0, 0.0), OBLIQUE)
    target = grid.covering((0.8, 0.8, 0.8), margin_mm=2.0)
    volume = noise(grid.shape, channels=3).expand(2, -1, -1, -1, -1)
    whole = resample(volume, grid, target, nearest=nearest)
    for points in (1, 250):  # the room's name `resample` is the function, so its module is reached through it
        monkeypatch.setitem(resample.__globals__, "SLAB_POINTS", points)
        torch.testing.assert_close(resample(volume, grid, target, nearest=nearest), whole, atol=0, rtol=0)


def test_samples_of_a_batch_are_those_of_its_parts() -> None:
    volumes = torch.cat((noise((4, 5, 6), 1), noise((4, 5, 6), 2)))
    points_voxel = torch.rand(2, 2, 3, 4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 8 - 2
    together = sample(volumes, points_voxel)
    assert together.shape == (2, 1, 2, 3, 4)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], sample(volumes[i : i + 1], points_voxel[i : i + 1]))


def test_sampling_has_the_right_gradients() -> None:
    volume = noise((4, 4, 4)).double().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    points_voxel = torch.rand(1, 2, 2, 2, 3, generator=generator, dtype=torch.float64) * 0.8 + 1.1
    assert torch.autograd.gradcheck(sample, (volume, points_voxel.requires_grad_()))
