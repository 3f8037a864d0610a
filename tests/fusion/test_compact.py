"""The compact network: small, local, with a gradient of every parameter."""

from dataclasses import replace

import pytest
import torch

from crossalign.fusion.networks.compact import DCFBCompact
from crossalign.fusion.networks.settings import CompactSettings
from crossalign.fusion.networks.unrolled import FROM_GEOMETRIC_MEAN, optimise_scores
from crossalign.networks import count_parameters

SMALL = CompactSettings(channels=8, blocks=1, middle_blocks=1, heads=2, window=2, kernel=3, context=4, hidden=4)


def pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 1, 5, 5, 5, generator=generator)
    a, b = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[:, None]
    return a, b


def build(seed: int = 0, settings: CompactSettings = SMALL, planar: bool = False) -> DCFBCompact:
    torch.manual_seed(seed)
    return DCFBCompact(settings, planar)


def test_the_shipped_size_is_small() -> None:
    assert count_parameters(DCFBCompact()) == 265_717
    assert count_parameters(DCFBCompact(planar=True)) == 199_061


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("shape", [(16, 16, 16), (9, 21, 13)])
def test_any_size_is_preserved_in_range(shape: tuple[int, int, int], planar: bool) -> None:
    a, b = pair(*shape)
    with torch.no_grad():
        fused = build(planar=planar).eval()(a, b, torch.zeros(1))
    assert fused.shape == a.shape
    assert float(fused.min()) >= 0
    assert float(fused.max()) <= 1


@pytest.mark.parametrize("planar", [False, True])
def test_every_parameter_has_a_gradient(planar: bool) -> None:
    model = build(1, planar=planar)
    pairs = [pair(16, 16, 24, seed=s) for s in (1, 2)]
    a, b = (torch.cat([p[k] for p in pairs]) for k in (0, 1))
    fused = model(a, b, torch.tensor([0.0, 1.0]))
    (fused * torch.rand(fused.shape)).sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert dead == []


def test_distant_voxels_do_not_matter() -> None:
    """Nothing is normalised over the volume: a change 100 voxels away changes no corner.

    Each step reaches ten voxels further, so there are two here.
    """
    model = build(2, replace(SMALL, score_steps=2)).eval()
    a, b = pair(16, 16, 144)
    changed = a.clone()
    changed[..., 128:] = 1 - changed[..., 128:]
    with torch.no_grad():
        before, after = model(a, b, torch.zeros(1)), model(changed, b, torch.zeros(1))
    assert float((before - after)[..., :20].abs().max()) < 1e-5
    assert float((before - after)[..., 128:].abs().max()) > 1e-3


def test_slices_of_the_twin_are_independent() -> None:
    """And a batch is its parts: the detail of each is that of its slices."""
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


def test_detail_changes_the_result() -> None:
    model = build(3).eval()
    a, b = pair(16, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(model(a, b, torch.zeros(1)), model(a, b, torch.ones(1)))


def test_untrained_it_is_near_the_unrolled_optimiser() -> None:
    """It begins with the constants of `unrolled-geometric`, which its first weights hardly change."""
    a, b = pair(20, 20, 20)
    with torch.no_grad():
        fused = build(4).eval()(a, b, torch.zeros(1))
    optimised = optimise_scores(a, b, 0.0, FROM_GEOMETRIC_MEAN)
    assert float((fused - optimised).abs().mean()) < 0.2 * float((optimised - (a + b) / 2).abs().mean())


def test_a_volume_fused_with_itself_is_itself() -> None:
    """Untrained it is near a mixture of both, local means and details alike."""
    a, _ = pair(20, 20, 20)
    with torch.no_grad():
        fused = build(4).eval()(a, a, torch.zeros(1))
    assert float((fused - a).abs().mean()) < 0.03


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("part", ["attention", "offsets"])
def test_an_ablation_lacks_a_part(part: str, planar: bool) -> None:
    """It has fewer parameters, runs, and every one that is left has a gradient; the part itself changes the result."""
    without = replace(SMALL, **{part: False})
    whole, ablated = build(7, planar=planar), build(7, without, planar)
    assert count_parameters(ablated) < count_parameters(whole)
    names = {name for name, _ in ablated.named_parameters()}
    assert not any({"offsets": ".offsets.", "attention": ".query."}[part] in name for name in names)
    a, b = pair(16, 16, 16)
    fused = ablated(a, b, torch.zeros(1))
    (fused * torch.rand(fused.shape)).sum().backward()
    assert all(p.grad is not None for p in ablated.parameters())
    shared = {name: value for name, value in whole.state_dict().items() if name in ablated.state_dict()}
    fitting = {name: value for name, value in shared.items() if value.shape == ablated.state_dict()[name].shape}
    ablated.load_state_dict(fitting, strict=False)
    with torch.no_grad():
        assert not torch.equal(ablated(a, b, torch.zeros(1)), whole(a, b, torch.zeros(1)))
