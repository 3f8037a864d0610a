"""Memory: slabs give what their plain twins give, bit for bit; working images are bounded, and a whole run is small."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tests.geometry.strategies import grids, rigids

from crossalign.errors import ImageError, InputError
from crossalign.geometry import Grid, Rigid, resample, resample_labels
from crossalign.images import Image, LabelMap, foreground, marked_voxels, scale_intensity, to_working_spacing
from crossalign.images.image import count_where, slabs
from crossalign.images.memory import BYTES_PER_VOXEL
from crossalign.models import StageSettings
from crossalign.registration import Problem
from crossalign.registration.preprocessed_pair import PreprocessedPair

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "memory.py"

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
seeds = st.integers(0, 99)


def slabbed(monkeypatch: pytest.MonkeyPatch, voxels: int) -> None:
    """Make every slab as small as this."""
    monkeypatch.setattr(slabs, "__defaults__", (0, voxels))
    monkeypatch.setitem(to_working_spacing.__globals__, "SLAB_VOXELS", voxels)
    monkeypatch.setitem(LabelMap.points_mm.__globals__, "POINT_SLAB_VOXELS", voxels)
    monkeypatch.setitem(resample.__globals__, "SLAB_POINTS", voxels)


def noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Whole numbers with ties, a third of them the lowest."""
    values = torch.randint(-40, 60, shape, generator=torch.Generator().manual_seed(seed)).float()
    return values.clamp(min=-10)


def plain_scaled(voxels: torch.Tensor) -> torch.Tensor:
    inside = foreground(voxels)
    values = voxels[inside]
    low, high = (values.kthvalue(int((len(values) - 1) * share / 100) + 1).values for share in (0.5, 99.5))
    if bool(high <= low):
        low, high = values.min(), values.max()
    if bool(high <= low):
        return inside.float()
    scaled = ((voxels - low) / (high - low)).clamp(0, 1)
    return torch.where(inside, scaled, torch.zeros_like(scaled))


def plain_smoothed(image: Image, spacing_mm: float) -> torch.Tensor:
    volume = image.voxels[None, None]
    for axis, step in zip((4, 3, 2), image.grid.spacing_mm, strict=True):
        if spacing_mm <= step * 1.01:
            continue
        sigma = 0.5 * (spacing_mm**2 - step**2) ** 0.5 / step
        radius = max(1, round(3 * sigma))
        weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=volume.dtype) / sigma) ** 2)
        shape, padding = [1] * 5, [0] * 6
        shape[axis] = len(weights)
        padding[2 * (4 - axis)] = padding[2 * (4 - axis) + 1] = radius
        volume = F.conv3d(F.pad(volume, padding, mode="replicate"), (weights / weights.sum()).reshape(shape))
    return volume[0, 0]


@given(shapes, seeds, st.integers(1, 60))
def test_slabs_are_the_whole(shape: tuple[int, int, int], seed: int, voxels: int) -> None:
    volume = noise(shape, seed)
    for axis in range(3):
        assert torch.equal(torch.cat(list(slabs(volume, axis, voxels)), axis), volume)
    assert count_where(volume, lambda part: part > 3) == int((volume > 3).sum())


@given(shapes, seeds, st.integers(1, 60))
def test_intensities_in_slabs_equal_the_plain_twin(shape: tuple[int, int, int], seed: int, voxels: int) -> None:
    image = Image(noise(shape, seed), Grid(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    before = image.voxels.clone()
    expected = plain_scaled(image.voxels)
    with pytest.MonkeyPatch.context() as patch:
        slabbed(patch, voxels)
        assert torch.equal(scale_intensity(image).voxels, expected)
    assert torch.equal(image.voxels, before)


@given(grids(most=9), seeds, st.integers(1, 200), st.floats(0.5, 6.0))
def test_working_images_in_slabs_equal_the_plain_twin(grid: Grid, seed: int, voxels: int, spacing_mm: float) -> None:
    image = Image(noise(grid.shape, seed), grid)
    before = image.voxels.clone()
    target = grid.covering((spacing_mm,) * 3)
    expected = resample(plain_smoothed(image, spacing_mm)[None, None], grid, target)[0, 0]
    with pytest.MonkeyPatch.context() as patch:
        slabbed(patch, voxels)
        assert torch.equal(to_working_spacing(image, spacing_mm).voxels, expected)
        assert torch.equal(image.voxels, before)
        assert torch.equal(to_working_spacing(image, spacing_mm, overwrite=True).voxels, expected)


@given(grids(most=8), grids(most=8), rigids(), seeds, st.integers(1, 60))
def test_labels_move_as_nearest_voxels_do(a: Grid, b: Grid, rigid: Rigid, seed: int, points: int) -> None:
    labels = noise(a.shape, seed).long()
    near = Rigid(rigid.rotation, a.center_mm() - rigid.rotation @ b.center_mm())
    expected = resample(labels[None, None].double(), a, b, near, fill=7.0, nearest=True)[0, 0].long()
    with pytest.MonkeyPatch.context() as patch:
        slabbed(patch, points)
        assert torch.equal(resample_labels(labels, a, b, near, fill=7), expected)


@given(grids(most=9), seeds, st.integers(1, 60))
def test_points_of_a_mask_in_slabs_are_those_of_all_its_voxels(grid: Grid, seed: int, voxels: int) -> None:
    labels = (noise(grid.shape, seed) > 20).long() * 3
    labels[-1, -1, -1] = 3
    mask = LabelMap(labels, grid)
    index = (labels != 0).nonzero()
    expected = grid.to_physical(index.flip(-1).double())
    ranks = torch.randint(len(index), (20,), generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        slabbed(patch, voxels)
        assert torch.equal(mask.points_mm(), expected)
        assert torch.equal(mask.points_mm(ranks), expected[ranks])
        assert torch.equal(mask.extremes_mm(), torch.stack((expected.amin(0), expected.amax(0))))
        assert torch.equal(marked_voxels(labels != 0, ranks), index[ranks])
        torch.testing.assert_close(mask.centroid_mm(), expected.mean(0), rtol=0, atol=1e-9)
        assert len(mask.sampled_points_mm(5)) <= 5
        assert mask.foreground_count() == len(index)
    assert torch.equal(mask.centroid_mm(), expected.mean(0)), "of an ordinary mask, which is one slab"


def coarse(spacing_mm: float, size: int = 24) -> Image:
    grid = Grid.centered((0.0, 0.0, 0.0), (size,) * 3, (spacing_mm,) * 3)
    return Image(noise(grid.shape, 1), grid, "scan.nii.gz")


@pytest.mark.parametrize("spacing_mm", [100.0, 1e4, 1e30, 1e300])
def test_a_working_image_that_is_too_large_is_refused_by_name(spacing_mm: float) -> None:
    with pytest.raises(ImageError, match=r"scan\.nii\.gz.*check the spacing in the header and its unit \(mm\)"):
        to_working_spacing(coarse(spacing_mm), 1.5)


@pytest.mark.parametrize("spacing_mm", [1e-3, 1e-9, 1e-300])
def test_voxels_too_small_for_the_working_spacing_are_refused_by_name(spacing_mm: float) -> None:
    with pytest.raises(ImageError, match=r"scan\.nii\.gz.*too small.*check the spacing"):
        to_working_spacing(coarse(spacing_mm), 1.5)


@pytest.mark.parametrize("spacing_mm", [1e15, 1e308])
def test_a_grid_that_cannot_be_counted_is_refused(spacing_mm: float) -> None:
    grid = Grid((3, 3, 3), (spacing_mm,) * 3, (0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="more voxels than can be counted: check the spacing"):
        grid.covering((1.0, 1.0, 1.0))


def test_of_a_large_working_image_only_the_part_about_the_points_is_made() -> None:
    scan = coarse(20.0)
    points = torch.tensor([[-30.0, 10.0, 200.0], [40.0, 50.0, 260.0]], dtype=torch.float64)
    part = to_working_spacing(scan, 1.5, near_mm=points)
    assert part.voxels.numel() < 200_000
    at = Grid.centered((5.0, 30.0, 230.0), (7, 7, 7), (9.0, 6.0, 9.0))
    whole = to_working_spacing(scan, 1.5)
    torch.testing.assert_close(
        part.resampled(at, fill=0.0).voxels, whole.resampled(at, fill=0.0).voxels, atol=1e-3, rtol=0
    )
    beyond = torch.full((1, 3), 1e7, dtype=torch.float64)
    assert to_working_spacing(scan, 1.5, near_mm=beyond).voxels.numel() == 1


STAGE = StageSettings(crop_shape=(16, 16, 16), crop_spacing_mm=2.5, working_spacing_mm=1.5)
STRAIGHT = torch.eye(3, dtype=torch.float64)


def test_crops_of_a_large_scan_are_those_of_its_whole_working_image(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = coarse(6.0)
    problem = Problem(scan, scan, Rigid.identity())
    starts = [torch.tensor([x, -5.0, 3.0, 5.0, 0.0, -9.0]).double() for x in (0.0, 60.0, -70.0)]
    center = torch.tensor([5.0, -8.0, 11.0], dtype=torch.float64)
    moves = [Rigid.from_parameters(one, center) for one in starts]
    batches = [Rigid(one.rotation[None], one.translation_mm[None]) for one in moves]
    whole = PreprocessedPair(problem, torch.device("cpu"))
    expected = [whole.crops(STAGE, center, batch, STRAIGHT) for batch in batches]
    monkeypatch.setitem(to_working_spacing.__globals__, "WHOLE_VOXELS", 1000)
    parts = PreprocessedPair(problem, torch.device("cpu"))
    for batch, (fixed, moving) in zip(batches, expected, strict=True):
        found = parts.crops(STAGE, center, batch, STRAIGHT)
        torch.testing.assert_close(found[0], fixed, atol=1e-4, rtol=0)
        torch.testing.assert_close(found[1], moving, atol=1e-4, rtol=0)


def test_a_scan_of_which_the_network_would_see_one_voxel_is_refused_by_name() -> None:
    scan = coarse(100.0)
    images = PreprocessedPair(Problem(scan, scan, Rigid.identity()), torch.device("cpu"))
    start = Rigid(torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64))
    with pytest.raises(
        ImageError, match=r"scan\.nii\.gz: voxels of 100 x 100 x 100 mm: the network's crop of 40 mm holds fewer"
    ):
        images.crops(STAGE, torch.zeros(3, dtype=torch.float64), start, STRAIGHT)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory in kilobytes, as Linux counts it")
@pytest.mark.parametrize(
    ("method", "options"), [("correspondence-image", ()), ("mind", ()), ("identity", ("--moved", "--report"))]
)
def test_a_registration_stays_under_the_bytes_of_the_memory_guard(method: str, options: tuple[str, ...]) -> None:
    words = [sys.executable, str(BENCHMARK), "--size", "192", "--method", method]
    words += [f"--option={option}" for option in options]
    table = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    bytes_of_one = float(table.splitlines()[-1].split("|")[-2])
    assert 8 < bytes_of_one < BYTES_PER_VOXEL, table
