"""The compact network: small, local, with a gradient of every parameter."""

import pytest
import torch

from crossalign.fusion.networks.compact import DCFBCompact
from crossalign.fusion.networks.settings import CompactSettings
from crossalign.networks import count_parameters

SMALL = CompactSettings(channels=8, blocks=1, heads=2, window=2, kernel=3, context=4, hidden=4, refinements=2)


def pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 1, 5, 5, 5, generator=generator)
    a, b = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[:, None]
    return a, b


def build(seed: int = 0, settings: CompactSettings = SMALL, planar: bool = False) -> DCFBCompact:
    torch.manual_seed(seed)
    return DCFBCompact(settings, planar)


def test_the_shipped_size_is_small() -> None:
    assert count_parameters(DCFBCompact()) == 87_522
    assert count_parameters(DCFBCompact(planar=True)) == 51_698


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
    estimates = torch.stack(model.estimates(a, b, torch.tensor([0.0, 1.0])))
    (estimates * torch.rand(estimates.shape)).sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert dead == []


def test_distant_voxels_do_not_matter() -> None:
    """Nothing is normalised over the volume: a change 60 voxels away changes no corner."""
    model = build(2).eval()
    a, b = pair(16, 16, 96)
    changed = a.clone()
    changed[..., 80:] = 1 - changed[..., 80:]
    with torch.no_grad():
        before, after = model(a, b, torch.zeros(1)), model(changed, b, torch.zeros(1))
    assert float((before - after)[..., :20].abs().max()) < 1e-5
    assert float((before - after)[..., 80:].abs().max()) > 1e-3


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


def test_a_volume_fused_with_itself_is_itself() -> None:
    """The initial estimate is near the average, and every step is towards the inputs or raises SSIM."""
    a, _ = pair(20, 20, 20)
    with torch.no_grad():
        fused = build(4).eval()(a, a, torch.zeros(1))
    assert float((fused - a).abs().mean()) < 0.03
