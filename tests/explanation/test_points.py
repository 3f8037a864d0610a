"""Where a point looks: the row is the network's own, and points that it cannot see are refused."""

import dataclasses

import pytest
import torch
from tests.explanation import planted

from crossalign.errors import InputError
from crossalign.explanation import attended_point
from crossalign.explanation.attention import position_grid
from crossalign.explanation.maps import View, spread
from crossalign.geometry import Rigid
from crossalign.networks import AttentionReg, CorrespondenceReg

POINT = torch.tensor([5.0, -7.0, 11.0], dtype=torch.float64)
START = Rigid.from_parameters(torch.tensor([40.0, 5, -9, 10, 20, -5], dtype=torch.float64), planted.ORIGIN)


def view(name: str) -> View:
    pairs = planted.plant(1, torch.Generator().manual_seed(4))
    made = planted.view_of(name, planted.untrained(name, 7), pairs.fixed, pairs.moving)
    return dataclasses.replace(made, start=START)


def position_of(made: View) -> int:
    """Number of the position nearest to the point, by distance."""
    places = position_grid(made.stage.network, made.grid).points_mm().flatten(0, 2)
    return int((places - POINT).norm(dim=-1).argmin())


@torch.no_grad()
def test_attention_regs_row_is_that_of_its_whole_map() -> None:
    made = view("attention-reg")
    model = made.stage.network
    assert isinstance(model, AttentionReg)
    assert model.moving_attention is not None
    fixed, moving = model.fixed_extractor(made.fixed), model.moving_extractor(made.moving)
    row = model.moving_attention.attention_map(moving, fixed)[0, position_of(made)]
    look = attended_point(made, "here", POINT)
    positions = position_grid(model, made.grid)
    expected = spread(row.reshape(positions.shape), positions, made.grid)
    torch.testing.assert_close(look.map.image.voxels * look.map.peak, expected)
    mean = row.double() @ positions.points_mm().flatten(0, 2)
    torch.testing.assert_close(look.looks_at_mm, START.apply(mean[None])[0], atol=1e-3, rtol=0)
    assert look.matched_mm is None
    assert look.largest_share == pytest.approx(float(row.max()))
    assert 1 <= look.positions <= look.all_positions == row.numel()


@torch.no_grad()
def test_the_match_is_the_networks_own() -> None:
    made = view("correspondence")
    model = made.stage.network
    assert isinstance(model, CorrespondenceReg)
    places, matches, _ = model.correspondences(made.fixed, made.moving)
    at = position_of(made)
    look = attended_point(made, "here", POINT)
    torch.testing.assert_close(look.position_mm.float(), places[0, at])
    step = (matches - places)[0, at].double()
    assert look.matched_mm is not None
    torch.testing.assert_close(look.matched_mm, START.apply((POINT + step)[None])[0])
    # A match is the mean place looked at, refined by at most one token on each axis.
    unrefined = START.inverse().apply(look.looks_at_mm[None])[0]
    assert float((unrefined - matches[0, at].double()).abs().max()) <= model.token_mm + 1e-3


def test_start_and_answer_of_a_point() -> None:
    made = view("correspondence")
    look = attended_point(made, "here", POINT)
    torch.testing.assert_close(look.start_mm, START.apply(POINT[None])[0])
    torch.testing.assert_close(look.answer_mm, made.found().apply(POINT[None])[0])
    assert look.map.scan == "moving"
    assert float(look.map.image.voxels.max()) == 1.0


@pytest.mark.parametrize("name", ["attention-reg", "correspondence"])
def test_every_corner_of_the_crop_can_be_followed_and_nothing_beyond(name: str) -> None:
    made = view(name)
    half = planted.SIZE * planted.SPACING_MM / 2
    for x, y, z in ((-1, -1, -1), (1, 1, 1), (1, -1, 1)):
        corner = torch.tensor([x, y, z], dtype=torch.float64) * (half - 0.01)
        attended_point(made, "corner", corner)
        with pytest.raises(InputError, match=r"'corner' at .* lies outside what stage 1 .*-24\.0.* to .*24\.0"):
            attended_point(made, "corner", corner * 1.02)


def test_a_network_without_attention_follows_no_point() -> None:
    pairs = planted.plant(1, torch.Generator().manual_seed(4))
    made = planted.view_of("feature-reg", planted.untrained("feature-reg", 7), pairs.fixed, pairs.moving)
    with pytest.raises(InputError, match="has no attention"):
        attended_point(made, "here", POINT)


def test_nothing_stays_hooked() -> None:
    correspondence = planted.untrained("correspondence", 7)
    pairs = planted.plant(1, torch.Generator().manual_seed(4))
    attended_point(planted.view_of("correspondence", correspondence, pairs.fixed, pairs.moving), "here", POINT)
    assert not any(module._forward_hooks for module in correspondence.modules())
