"""Pair synthesis: shapes, deformations, and that the answer is still right."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.toys import make_dataset
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Grid
from crossalign.simulation.ellipsoids import even_directions
from crossalign.training.dataset import PairDataset, joined
from crossalign.training.pair_synthesis import PairSynthesis, fit_shapes
from crossalign.training.settings import PairSynthesisSettings

STILL = PairSynthesisSettings(size_sd=0.0, bump_sd=0.0, blended_fraction=0.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dice(a: Tensor, b: Tensor) -> float:
    a, b = a.float() > 0.5, b.float() > 0.5
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def at(dataset: PairDataset, offsets_mm: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both images and both masks at offsets (z, y, x, 3) from each gland's centre, mapped by the reference."""
    index = torch.arange(len(dataset))
    points = offsets_mm + dataset.center_mm[:, None, None, None]
    there = dataset.reference(index).apply(points.flatten(1, 3)).reshape(points.shape)
    return (
        dataset.fixed_at(index, points, label=False),
        dataset.moving_at(index, there),
        dataset.fixed_at(index, points, label=True),
        dataset.moving_mask_at(index, there),
    )


def offsets_mm(half_mm: float, size: int = 17) -> Tensor:
    axis = torch.linspace(-half_mm, half_mm, size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack((x, y, z), -1)


@given(st.lists(st.floats(9.0, 30.0), min_size=3, max_size=3))
def test_a_shape_gives_an_ellipsoids_radii_back(half_axes: list[float]) -> None:
    directions = even_directions(400)
    radii = 1 / (directions / torch.tensor(half_axes)).norm(dim=-1)
    shape = fit_shapes(radii[None], directions)
    other = even_directions(301)
    expected = 1 / (other / torch.tensor(half_axes)).norm(dim=-1)
    assert float((shape.radius_mm(other)[0] / expected - 1).abs().mean()) < 0.05


def test_directions_are_unit_vectors_spread_evenly() -> None:
    directions = even_directions(500)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(500))
    assert float(directions.mean(0).norm()) < 0.01


def test_one_case_that_is_not_deformed_comes_back_as_it_was() -> None:
    dataset = make_dataset(1, 3)
    made = PairSynthesis(dataset, STILL).draw(2, seeded(0))
    offsets = offsets_mm(20.0)
    for old, new in zip(at(dataset, offsets)[:2], at(made, offsets)[:2], strict=True):
        assert float((old - new).abs().mean()) < 0.02
        assert float(old.std()) > 0.1


def test_any_two_images_share_the_drawn_shape() -> None:
    made = PairSynthesis(make_dataset(4, 1)).draw(6, seeded(2))
    _, _, fixed, moving = at(made, offsets_mm(30.0, 25))
    for one, other in zip(fixed, moving, strict=True):
        assert dice(one, other) > 0.88
    surface = made.surface_mm[:, :, None, None]
    inside, outside = at(made, surface * 0.8)[2], at(made, surface * 1.2)[2]
    assert float(inside.mean()) > 0.9
    assert float(outside.mean()) < 0.1


def test_structures_of_new_cases_are_new() -> None:
    dataset = make_dataset(3, 1)
    made = PairSynthesis(dataset, PairSynthesisSettings(0.2, 0.1, 1.0)).draw(8, seeded(0))
    volumes = made.fixed_mask.float().sum((1, 2, 3, 4))
    old = dataset.fixed_mask.float().sum((1, 2, 3, 4))
    assert float(volumes.std() / volumes.mean()) > 0.15
    assert float(volumes.max()) > float(old.max())


def test_the_same_seed_gives_the_same_cases_on_any_grid() -> None:
    maker = PairSynthesis(make_dataset(3, 1))
    one, again, other = (maker.draw(2, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.moving, again.moving)
    assert not torch.equal(one.moving, other.moving)
    small = maker.draw(2, seeded(5), Grid.centered((0.0, 0.0, 0.0), (20, 20, 20), (4.0, 4.0, 4.0)))
    assert small.fixed.shape == small.moving.shape == (2, 1, 20, 20, 20)
    offsets = offsets_mm(15.0)
    assert float((at(small, offsets)[0] - at(one, offsets)[0]).abs().mean()) < 0.03
    assert len(joined([make_dataset(1), maker.draw(1, seeded(0))])) == 2


def test_pairs_are_not_made_without_masks_of_both() -> None:
    dataset = make_dataset(2)
    assert dataset.moving_mask is not None
    masks = dataset.moving_mask.clone()
    masks[1] = -1
    for without in (replace(dataset, moving_mask=None), replace(dataset, moving_mask=masks)):
        with pytest.raises(InputError, match="every case needs a mask of its moving image"):
            PairSynthesis(without)
    with pytest.raises(InputError, match="'size_sd' must be 0 or more"):
        PairSynthesisSettings(size_sd=-1.0)
