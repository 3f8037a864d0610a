"""DCFB: attention against a naive twin, bounded offsets, a scale that does not depend on the volume's size."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from crossalign.errors import InputError
from crossalign.fusion.networks.blend_block import (
    ChannelGate,
    DeformableCrossBlend,
    DropPath,
    Offsets,
    WindowAttention,
    resampled_at,
)
from crossalign.fusion.networks.dcfb import DCFB, padded_to, weighted_sum
from crossalign.fusion.networks.settings import DCFBSettings

CUBE = (2, 2, 2)
TINY = DCFBSettings(channels=8, depths=(1, 1), heads=(2, 2), drop_path=0.0)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def build(seed: int = 0, settings: DCFBSettings = TINY) -> DCFB:
    torch.manual_seed(seed)
    return DCFB(settings)


@torch.no_grad()
def test_attention_agrees_with_its_naive_twin() -> None:
    torch.manual_seed(1)
    window, heads, channels = 2, 2, 6
    layer = WindowAttention(channels, heads, (window,) * 3)
    x, other, gate = (random(2, channels, 4, 2, 6, seed=s) for s in (1, 2, 3))
    found = layer(x, other, gate)
    size = channels // heads
    for at in ((0, 0, 0, 0), (1, 3, 1, 5), (1, 0, 1, 2)):  # batch, z, y, x
        n, voxel = at[0], torch.tensor(at[1:])
        first = voxel // window * window
        others = [first + torch.tensor([i, j, k]) for i in range(2) for j in range(2) for k in range(2)]
        expected = []
        query = layer.query(x[(n, slice(None), *voxel)])
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores, values = [], []
            for there in others:
                key = layer.key(other[(n, slice(None), *there)])
                number = int(((voxel - there + window - 1) * torch.tensor([9, 3, 1])).sum())
                scores.append(query[part] @ key[part] / size**0.5 + layer.position[head, number])
                values.append((layer.value(x[(n, slice(None), *there)]) * gate[(n, slice(None), *there)])[part])
            weights = torch.softmax(torch.stack(scores), 0)
            expected.append((weights[:, None] * torch.stack(values)).sum(0))
        torch.testing.assert_close(found[(n, slice(None), *voxel)], torch.cat(expected))


def test_the_attention_map_matters() -> None:
    """The authors' version discards the softmax: scaling keys would then scale the output."""
    layer = WindowAttention(4, 2, CUBE)
    x, other = random(1, 4, 2, 2, 2), random(1, 4, 2, 2, 2, seed=1)
    one = torch.ones(1, 4, 1, 1, 1)
    assert not torch.allclose(layer(x, other, one), layer(x, 3 * other, one))
    assert float(layer(x, 1e4 * other, one).detach().abs().max()) < 10


def test_offsets_are_bounded() -> None:
    layer = Offsets(4)
    with torch.no_grad():
        layer.out.weight.mul_(1e3)
    offsets = layer(random(1, 4, 3, 4, 5), random(1, 4, 3, 4, 5, seed=1)).detach()
    assert offsets.shape == (1, 3, 4, 5, 3)
    assert float(offsets.abs().max()) <= 1
    assert float(offsets.abs().max()) > 0.9


def test_offsets_in_a_plane_stay_in_it() -> None:
    offsets = Offsets(4, planar=True)(random(1, 4, 2, 4, 5), random(1, 4, 2, 4, 5, seed=1)).detach()
    assert offsets.shape == (1, 2, 4, 5, 3)
    assert float(offsets[..., 2].abs().max()) == 0
    assert float(offsets[..., :2].abs().max()) > 0


@pytest.mark.parametrize(("axis", "dim"), [(0, 4), (1, 3), (2, 2)])
def test_an_offset_of_one_voxel_is_a_shift_along_its_axis(axis: int, dim: int) -> None:
    """On a volume with three different sides: reference points that mix up axes would show."""
    volume = random(1, 2, 3, 5, 7)
    offsets = torch.zeros(1, 3, 5, 7, 3)
    torch.testing.assert_close(resampled_at(volume, offsets), volume)
    offsets[..., axis] = 1.0
    size = volume.shape[dim]
    moved = resampled_at(volume, offsets)
    torch.testing.assert_close(moved.narrow(dim, 0, size - 1), volume.narrow(dim, 1, size - 1))
    torch.testing.assert_close(
        moved.narrow(dim, size - 1, 1), volume.narrow(dim, size - 1, 1)
    )  # the border is repeated


def test_a_block_depends_on_the_other_map() -> None:
    block = DeformableCrossBlend(8, 2, CUBE).eval()
    x, other = random(1, 8, 4, 4, 6), random(1, 8, 4, 4, 6, seed=1)
    assert not torch.allclose(block(x, other), block(x, other.flip(2)))


def test_a_local_gate_depends_on_its_box_alone() -> None:
    gate = ChannelGate(4, box=CUBE)
    branch = random(1, 4, 4, 4, 4)
    changed = branch.clone()
    changed[..., 2:] += 1
    before, after = gate(branch), gate(changed)
    torch.testing.assert_close(before[..., :2], after[..., :2])
    assert not torch.allclose(before[..., 2:], after[..., 2:])
    assert ChannelGate(4, box=None)(branch).shape == (1, 4, 1, 1, 1)


def test_drop_path_preserves_the_mean_and_is_off_in_eval() -> None:
    drop, volume = DropPath(0.5), torch.ones(4000, 1, 1, 1, 1)
    torch.manual_seed(0)
    assert float(drop.train()(volume).mean()) == pytest.approx(1, abs=0.1)
    assert drop.eval()(volume) is volume


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 32, 24), (13, 21, 17)])
def test_any_size_is_preserved(shape: tuple[int, int, int]) -> None:
    model = build().eval()
    with torch.no_grad():
        assert model(random(1, 1, *shape), random(1, 1, *shape, seed=1)).shape == (1, 1, *shape)


def test_the_outputs_scale_does_not_depend_on_the_volume() -> None:
    """The authors' raw sums make an output whose mean grows with the voxel count: 8 times here."""
    model = build(3).eval()
    a, b = random(1, 1, 16, 16, 16), random(1, 1, 16, 16, 16, seed=1)
    with torch.no_grad():
        small = model(a, b)
        large = model(a.repeat(1, 1, 2, 2, 2), b.repeat(1, 1, 2, 2, 2))
    assert float(large.abs().mean()) == pytest.approx(float(small.abs().mean()), rel=0.25)
    assert float(small.abs().max()) < 10


def test_weights_sum_to_one() -> None:
    maps = torch.cat((torch.full((1, 1, 2, 3, 4), 3.0), torch.full((1, 1, 2, 3, 4), -1.0)), dim=1)
    torch.testing.assert_close(weighted_sum(maps), torch.full((1, 1, 2, 3, 4), 0.75 * 3 - 0.25))
    assert float(weighted_sum(torch.zeros(1, 2, 2, 2, 2)).abs().max()) == 0
    same = torch.rand(1, 1, 2, 3, 4).expand(1, 2, 2, 3, 4)
    torch.testing.assert_close(weighted_sum(same), same[:, :1])


def test_every_parameter_has_a_gradient() -> None:
    model = build(1)
    fused = model(random(2, 1, 16, 16, 32), random(2, 1, 16, 16, 32, seed=1))
    (fused * random(*fused.shape, seed=2)).sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert dead == []


def test_the_papers_size() -> None:
    """80.0 M parameters with a gradient; the authors' program has about 98.75 M, of which 5.5 M have none."""
    with torch.device("meta"):
        model = DCFB().eval()
    volume = torch.empty(1, 1, 128, 128, 128, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert model(volume, volume).shape == volume.shape
    assert sum(p.numel() for p in model.parameters()) == 80_012_630
    assert counter.get_total_flops() == pytest.approx(290.1e9, rel=0.01)


def test_padding_repeats_the_border() -> None:
    padded = padded_to(random(1, 1, 5, 8, 9), (4, 4, 4))
    assert padded.shape == (1, 1, 8, 8, 12)
    torch.testing.assert_close(padded[:, :, 7], padded[:, :, 4])


def test_invalid_settings_are_an_error() -> None:
    with pytest.raises(InputError, match="heads"):
        DCFBSettings(channels=10, depths=(1,), heads=(3,))
    with pytest.raises(InputError, match="as many as levels"):
        DCFBSettings(depths=(1,), heads=(3, 6))
    with pytest.raises(InputError, match="window"):
        DCFBSettings(window=0)
    with pytest.raises(InputError, match="heads"):
        WindowAttention(6, 4, CUBE)
