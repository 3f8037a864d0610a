"""Where a point attends: the row is the network's own, and points beyond its crop are refused."""

import pytest
import torch
from tests.explanation import planted
from torch import Tensor

from crossalign.errors import InputError
from crossalign.explanation import StageCrop, attended_point
from crossalign.explanation.crops import interpolate_tokens
from crossalign.geometry import Grid, Rigid
from crossalign.networks import AttentionReg, CorrespondenceReg
from crossalign.networks.attention import attended
from crossalign.networks.capabilities import shown_attention

POINT = torch.tensor([5.0, -7.0, 11.0], dtype=torch.float64)
INITIAL = Rigid.from_parameters(torch.tensor([40.0, 5, -9, 10, 20, -5], dtype=torch.float64), planted.ORIGIN)


def crop_of(name: str) -> StageCrop:
    pairs = planted.plant(1, torch.Generator().manual_seed(4))
    return planted.crop_of(name, planted.untrained(name, 7), pairs.fixed, pairs.moving, INITIAL)


def tokens_of(crop: StageCrop) -> Grid:
    network = shown_attention(crop.stage.network)
    assert network is not None
    return network.token_grid().on(crop.grid)


def token_of(crop: StageCrop) -> int:
    """Number of the token nearest to the point, by distance."""
    positions = tokens_of(crop).points_mm().flatten(0, 2)
    return int((positions - POINT).norm(dim=-1).argmin())


@torch.no_grad()
def test_attention_regs_row_is_the_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the block gathers at the point's token, in its fused kernel, is the mean of the values by these weights."""
    crop = crop_of("attention-reg")
    network, token = crop.stage.network, token_of(crop)
    gathered: list[Tensor] = []

    def kept(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        gathered.append(attended(query, key, value))
        return gathered[-1]

    assert isinstance(network, AttentionReg)
    block = network.moving_attention
    assert block is not None
    monkeypatch.setattr("crossalign.networks.attention_reg.attended", kept)
    network(crop.fixed, crop.moving)  # the fixed side's block, then the moving one's
    values = block.value(network.moving_extractor(crop.moving)).flatten(2)[0]
    weights = network.attention_row(crop.fixed, crop.moving, token).weights
    torch.testing.assert_close(values @ weights.float(), gathered[1][0, token])
    found, tokens = attended_point(crop, "here", POINT), tokens_of(crop)
    expected = interpolate_tokens(weights.reshape(tokens.shape), tokens, crop.grid)
    torch.testing.assert_close(found.map.image.voxels * found.map.peak, expected)
    mean = weights @ tokens.points_mm().flatten(0, 2)
    torch.testing.assert_close(found.attended_mm, INITIAL.apply(mean[None])[0], atol=1e-3, rtol=0)
    assert found.matched_mm is None
    assert found.largest_weight == pytest.approx(float(weights.max()))
    assert 1 <= found.effective_tokens <= found.tokens == weights.numel()


@torch.no_grad()
def test_the_match_is_the_networks_own() -> None:
    crop = crop_of("correspondence")
    model = crop.stage.network
    assert isinstance(model, CorrespondenceReg)
    matching = model.match(crop.fixed, crop.moving)
    positions, matches = matching.positions_mm, matching.matches_mm
    at = token_of(crop)
    found = attended_point(crop, "here", POINT)
    torch.testing.assert_close(found.token_mm.float(), positions[0, at])
    step = (matches - positions)[0, at].double()
    assert found.matched_mm is not None
    torch.testing.assert_close(found.matched_mm, INITIAL.apply((POINT + step)[None])[0])
    # A match is the weighted mean position, refined by at most one token on each axis.
    unrefined = INITIAL.inverse().apply(found.attended_mm[None])[0]
    assert float((unrefined - matches[0, at].double()).abs().max()) <= model.token_spacing_mm + 1e-3


def test_initial_position_and_answer_of_a_point() -> None:
    crop = crop_of("correspondence")
    found = attended_point(crop, "here", POINT)
    torch.testing.assert_close(found.initial_mm, INITIAL.apply(POINT[None])[0])
    torch.testing.assert_close(found.answer_mm, crop.application.answer.apply(POINT[None])[0])
    assert found.map.scan == "moving"
    assert float(found.map.image.voxels.max()) == 1.0


@pytest.mark.parametrize("name", ["attention-reg", "correspondence"])
def test_every_corner_of_the_crop_can_be_followed_and_nothing_beyond(name: str) -> None:
    crop = crop_of(name)
    half = planted.SIZE * planted.SPACING_MM / 2
    for x, y, z in ((-1, -1, -1), (1, 1, 1), (1, -1, 1)):
        corner = torch.tensor([x, y, z], dtype=torch.float64) * (half - 0.01)
        attended_point(crop, "corner", corner)
        with pytest.raises(
            InputError, match=r"'corner' at .* lies outside the crop of stage 1 .*box of 48.0 x 48.0 x 48.0 mm about"
        ):
            attended_point(crop, "corner", corner * 1.02)


def test_a_network_without_attention_follows_no_point() -> None:
    pairs = planted.plant(1, torch.Generator().manual_seed(4))
    crop = planted.crop_of("feature-reg", planted.untrained("feature-reg", 7), pairs.fixed, pairs.moving)
    with pytest.raises(InputError, match="has no attention"):
        attended_point(crop, "here", POINT)


def test_nothing_stays_hooked() -> None:
    correspondence = planted.untrained("correspondence", 7)
    pairs = planted.plant(1, torch.Generator().manual_seed(4))
    attended_point(planted.crop_of("correspondence", correspondence, pairs.fixed, pairs.moving), "here", POINT)
    assert not any(module._forward_hooks for module in correspondence.modules())
