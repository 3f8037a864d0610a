"""Perturbations land at the distance asked for, in the proportions drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.geometry.strategies import numbers

from crossalign.errors import InputError
from crossalign.geometry import Rigid, draw_perturbation, mean_displacement_mm
from crossalign.geometry.rigid import RANGE_DEG, RANGE_MM

CENTER_MM = torch.tensor([20.0, -35.0, 410.0], dtype=torch.float64)


def gland_points(count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Points on an ellipsoid of about a prostate's size, one and the same for each of the batch."""
    unit = torch.randn(200, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    radii_mm = torch.tensor([25.0, 18.0, 22.0], dtype=torch.float64)
    return (unit / unit.norm(dim=-1, keepdim=True) * radii_mm + CENTER_MM).to(dtype).expand(count, -1, -1)


def draw(targets_mm: list[float], seed: int, dtype: torch.dtype = torch.float64) -> Rigid:
    count = len(targets_mm)
    centers_mm = CENTER_MM.to(dtype).expand(count, -1)
    target_sre_mm = torch.tensor(targets_mm, dtype=dtype)
    return draw_perturbation(gland_points(count, dtype), centers_mm, target_sre_mm, torch.Generator().manual_seed(seed))


def reached_mm(motion: Rigid, points_mm: torch.Tensor) -> torch.Tensor:
    return mean_displacement_mm(motion, Rigid.identity(points_mm.dtype), points_mm)


@given(st.lists(numbers(0, 30), min_size=1, max_size=6), st.integers(0, 2**31))
def test_each_target_is_hit(targets_mm: list[float], seed: int) -> None:
    sre_mm = reached_mm(draw(targets_mm, seed), gland_points(len(targets_mm)))
    assert (sre_mm - torch.tensor(targets_mm, dtype=torch.float64)).abs().max() <= 0.01


def test_each_target_is_hit_in_single_precision() -> None:
    targets_mm = [0.0, 0.5, 4.0, 8.0, 16.0, 20.0]
    sre_mm = reached_mm(draw(targets_mm, 3, torch.float32), gland_points(6, torch.float32))
    assert (sre_mm - torch.tensor(targets_mm)).abs().max() <= 0.01


@given(numbers(0.5, 20), st.integers(0, 2**31))
def test_all_six_parameters_are_scaled_alike(target_mm: float, seed: int) -> None:
    unit = torch.rand(1, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    drawn = (unit * torch.tensor([RANGE_MM] * 3 + [RANGE_DEG] * 3, dtype=torch.float64))[0]
    parameters = draw([target_mm], seed).to_parameters(CENTER_MM)[0]
    scale = parameters.norm() / drawn.norm()
    torch.testing.assert_close(parameters, drawn * scale, atol=1e-6, rtol=1e-6)


def test_all_parameters_take_part_alike() -> None:
    parameters = draw([5.0] * 2000, seed=0).to_parameters(CENTER_MM)
    share = parameters / torch.tensor([RANGE_MM] * 3 + [RANGE_DEG] * 3, dtype=torch.float64)
    assert share.mean(0).abs().max() < 0.05, "no preferred side"
    spread = share.std(0)
    # Scaling to one SRE draws out the smaller movers, the turns, a little: measured 1.22.
    assert spread.max() / spread.min() < 1.3, "no preferred parameter"


@given(st.integers(0, 2**31))
def test_the_same_seed_draws_the_same_start(seed: int) -> None:
    first, second = draw([8.0, 16.0], seed).matrix(), draw([8.0, 16.0], seed).matrix()
    assert torch.equal(first, second)
    assert not torch.equal(first, draw([8.0, 16.0], seed + 1).matrix())


def test_a_start_does_not_depend_on_those_drawn_with_it() -> None:
    alone = draw([8.0], seed=4).matrix()[0]
    torch.testing.assert_close(draw([8.0, 29.0, 0.0], seed=4).matrix()[0], alone, atol=1e-9, rtol=0)


def test_a_target_of_zero_moves_nothing_whatever_is_beside_it() -> None:
    motion = draw([0.0, 20.0], seed=1)
    torch.testing.assert_close(motion[0].matrix(), torch.eye(4, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("target_mm", [-1.0, float("nan"), float("inf")])
def test_impossible_targets_are_refused(target_mm: float) -> None:
    with pytest.raises(InputError, match="0 mm or more"):
        draw([5.0, target_mm], seed=0)


def test_targets_that_rounding_puts_out_of_reach_are_refused() -> None:
    points_mm, targets_mm = gland_points(50, torch.float32), torch.linspace(1, 20, 50)
    centers_mm = CENTER_MM.float().expand(50, -1)
    with pytest.raises(InputError, match="smaller initial SRE"):
        draw_perturbation(points_mm, centers_mm, targets_mm, torch.Generator().manual_seed(0), tolerance_mm=0.0)
