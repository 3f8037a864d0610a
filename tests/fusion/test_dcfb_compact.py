"""The compact network: small, local, every parameter alive; its steps against automatic differentiation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from crossalign.errors import InputError, WeightsError
from crossalign.fusion.networks.compact import CompactSettings, DCFBCompact
from crossalign.fusion.networks.dcfb import DCFB, DCFBSettings
from crossalign.fusion.networks.model_files import (
    FusionStage,
    FusionStageSettings,
    apply_fusion_model,
    build_fusion_model,
    fusion_model_names,
    load_fusion_stage,
    save_fusion_stage,
)
from crossalign.fusion.networks.score_gradients import (
    C1,
    C2,
    Ascent,
    PairFacts,
    joint_step,
    pair_facts,
    pair_moments,
    similarity_ascent,
    transfer_ascent,
    window_means,
)
from crossalign.networks import count_parameters
from crossalign.similarity import gradient_transfer_score, sobel

Score = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Find = Callable[[torch.Tensor, PairFacts], Ascent]

SMALL = CompactSettings(channels=8, blocks=1, heads=2, window=2, kernel=3, context=4, hidden=4, steps=2)


def pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 1, 5, 5, 5, generator=generator)
    a, b = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[:, None]
    return a, b


def build(seed: int = 0, settings: CompactSettings = SMALL, planar: bool = False) -> DCFBCompact:
    torch.manual_seed(seed)
    return DCFBCompact(settings, planar)


def similarity(fused: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Summed structural similarity to both inputs, windows cut at the border."""
    total = torch.zeros((), dtype=fused.dtype)
    for other in (a, b):
        parts = window_means(torch.cat((fused, other, fused * fused, other * other, fused * other), 1))[0]
        mean_f, mean_o, ff, oo, fo = parts
        luminance = (2 * mean_f * mean_o + C1) / (mean_f**2 + mean_o**2 + C1)
        contrast = (2 * (fo - mean_f * mean_o) + C2) / (ff - mean_f**2 + oo - mean_o**2 + C2)
        total = total + (luminance * contrast).sum()
    return total


def transferred(fused: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Qabf's numerator."""
    strength = sum(sobel(v).square().sum(1).sqrt().sum() for v in (a, b))
    return gradient_transfer_score(fused, a, b) * strength


ASCENTS = [(similarity, similarity_ascent), (transferred, transfer_ascent)]


@pytest.mark.parametrize(("score", "ascent"), ASCENTS, ids=["similarity", "transfer"])
def test_an_ascent_is_the_gradient_that_automatic_differentiation_finds(score: Score, ascent: Find) -> None:
    generator = torch.Generator().manual_seed(0)  # at a tie of two gradients Qabf has no derivative
    a, b = (0.1 * volume + 0.9 * torch.rand(volume.shape, generator=generator) for volume in pair(14, 12, 13))
    fused = (0.6 * a + 0.4 * b + 0.02).requires_grad_()
    score(fused, a, b).backward()
    found = ascent(fused.detach(), pair_facts(a, b))
    assert fused.grad is not None
    torch.testing.assert_close(found.gradient, fused.grad, atol=2e-3 * float(fused.grad.abs().max()), rtol=0.02)
    assert float(found.curvature.min()) > 0


@pytest.mark.parametrize("weight", [1e-6, 0.3])
def test_a_step_raises_what_it_is_for(weight: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (0.9 * volume + 0.1 * torch.rand(volume.shape, generator=generator) for volume in pair(20, 18, 22))
    fused, facts = (a + b) / 2, pair_facts(a, b)
    step = joint_step(
        similarity_ascent(fused, facts), transfer_ascent(fused, facts), torch.full((1, 1, 1, 1, 1), weight)
    )

    def total(volume: torch.Tensor) -> torch.Tensor:
        return similarity(volume, a, b) + weight * transferred(volume, a, b)

    assert total(fused + 0.5 * step) > total(fused)


def test_flat_volumes_have_a_step_of_nothing() -> None:
    flat = torch.full((1, 1, 12, 12, 12), 0.5)
    facts = pair_facts(flat, flat)
    step = joint_step(similarity_ascent(flat, facts), transfer_ascent(flat, facts), torch.full((1, 1, 1, 1, 1), 0.3))
    assert float(step.abs().max()) < 1e-3


def test_moments_are_those_of_the_window() -> None:
    a, b = pair(23, 23, 23)
    moments = pair_moments(a, b)
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    weights = line[:, None, None] * line[:, None] * line
    weights = weights / weights.sum()
    cut_a, cut_b = (v[0, 0, 6:17, 5:16, 7:18].double() for v in (a, b))
    mean_a, mean_b = (cut_a * weights).sum(), (cut_b * weights).sum()
    assert float(moments.a.mean[0, 0, 11, 10, 12]) == pytest.approx(float(mean_a), abs=1e-6)
    variance = ((cut_b - mean_b) ** 2 * weights).sum()
    assert float(moments.b.variance[0, 0, 11, 10, 12]) == pytest.approx(float(variance), abs=1e-6)
    covariance = ((cut_a - mean_a) * (cut_b - mean_b) * weights).sum()
    assert float(moments.covariance[0, 0, 11, 10, 12]) == pytest.approx(float(covariance), abs=1e-6)


def test_the_shipped_size_is_small() -> None:
    assert count_parameters(DCFBCompact()) == 87_522
    assert count_parameters(DCFBCompact(planar=True)) == 51_698


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("shape", [(16, 16, 16), (9, 21, 13)])
def test_any_size_comes_back_in_range(shape: tuple[int, int, int], planar: bool) -> None:
    a, b = pair(*shape)
    with torch.no_grad():
        fused = build(planar=planar).eval()(a, b, torch.zeros(1))
    assert fused.shape == a.shape
    assert float(fused.min()) >= 0
    assert float(fused.max()) <= 1


@pytest.mark.parametrize("planar", [False, True])
def test_no_layer_is_dead(planar: bool) -> None:
    model = build(1, planar=planar)
    pairs = [pair(16, 16, 24, seed=s) for s in (1, 2)]
    a, b = (torch.cat([p[k] for p in pairs]) for k in (0, 1))
    made = torch.stack(model.progress(a, b, torch.tensor([0.0, 1.0])))
    (made * torch.rand(made.shape)).sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert dead == []


def test_what_is_far_does_not_matter() -> None:
    """Nothing is normalised over the volume: a change 60 voxels away leaves a corner as it is."""
    model = build(2).eval()
    a, b = pair(16, 16, 96)
    changed = a.clone()
    changed[..., 80:] = 1 - changed[..., 80:]
    with torch.no_grad():
        before, after = model(a, b, torch.zeros(1)), model(changed, b, torch.zeros(1))
    assert float((before - after)[..., :20].abs().max()) < 1e-5
    assert float((before - after)[..., 80:].abs().max()) > 1e-3


def test_slices_of_the_twin_do_not_hear_of_each_other() -> None:
    """And a batch is its parts: the emphasis of each goes with its slices."""
    model = build(5, planar=True).eval()
    a, b = pair(6, 16, 16)
    changed = a.clone()
    changed[:, :, 3] = 1 - changed[:, :, 3]
    with torch.no_grad():
        before, after = model(a, b, torch.zeros(1)), model(changed, b, torch.zeros(1))
        both = model(torch.cat((a, changed)), torch.cat((b, b)), torch.tensor([0.0, 1.0]))
        detail = model(changed, b, torch.ones(1))
    others = [0, 1, 2, 4, 5]
    torch.testing.assert_close(before[:, :, others], after[:, :, others])
    assert float((before - after)[:, :, 3].abs().max()) > 1e-3
    torch.testing.assert_close(both, torch.cat((before, detail)), atol=1e-5, rtol=1e-4)


def test_emphasis_changes_the_result() -> None:
    model = build(3).eval()
    a, b = pair(16, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(model(a, b, torch.zeros(1)), model(a, b, torch.ones(1)))


def test_a_pair_that_is_one_volume_stays_itself() -> None:
    """Begun near the average, and every step is towards inputs or similarity: of two alike nothing else comes."""
    a, _ = pair(20, 20, 20)
    with torch.no_grad():
        fused = build(4).eval()(a, a, torch.zeros(1))
    assert float((fused - a).abs().mean()) < 0.03


@pytest.mark.parametrize("name", fusion_model_names())
def test_a_stage_survives_its_file(name: str, tmp_path: Path) -> None:
    paper = DCFBSettings(channels=8, depths=(1,), heads=(2,))
    settings = FusionStageSettings(name, SMALL, paper)
    torch.manual_seed(0)
    model = build_fusion_model(settings).eval()
    save_fusion_stage(FusionStage(model, settings, {"step": "3"}), tmp_path / "x.safetensors")
    back = load_fusion_stage(tmp_path / "x.safetensors")
    assert back.settings == settings
    assert back.notes == {"step": "3"}
    a, b = pair(16, 16, 16)
    theirs, mine = (apply_fusion_model(m, a, b, 0.0) for m in (back.model, model))
    assert torch.equal(theirs, mine)
    assert settings.multiple == 8


def test_files_that_are_no_stage(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such"):
        load_fusion_stage(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(WeightsError, match="damaged"):
        load_fusion_stage(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not a fusion network"):
        load_fusion_stage(tmp_path / "other.safetensors")
    wrong = FusionStage(DCFB(DCFBSettings(8, (1,), (2,))), FusionStageSettings("dcfb-compact", SMALL), {})
    save_fusion_stage(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match="do not fit"):
        load_fusion_stage(tmp_path / "wrong.safetensors")


def test_settings_that_cannot_be() -> None:
    with pytest.raises(InputError, match="heads"):
        replace(SMALL, heads=3)
    with pytest.raises(InputError, match="odd"):
        replace(SMALL, kernel=4)
    with pytest.raises(InputError, match="dcfb-compact"):
        FusionStageSettings("unet")
