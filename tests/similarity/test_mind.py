"""MIND agrees with its definition written out slowly, and with its laws."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossalign.errors import InputError
from crossalign.similarity import mind, mind_ssc

SHAPE = (4, 5, 3)
UNIT = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
FROM_CENTER = [((0, 0, 0), n) for n in UNIT]
# Two of the six neighbours that lie on different axes.
ACROSS = [(a, b) for a, b in itertools.combinations(UNIT, 2) if sum(i * j for i, j in zip(a, b, strict=True)) == 0]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slowly(scan: torch.Tensor, pairs, sigma: float, distance: int) -> torch.Tensor:
    """Written from equations 2 to 4 of the paper of 2012, voxel by voxel."""
    radius = math.ceil(3 * sigma)
    patch = list(itertools.product(range(-radius, radius + 1), repeat=3))
    weights = [math.exp(-(z * z + y * y + x * x) / (2 * sigma**2)) for z, y, x in patch]
    total = sum(weights)

    def value(voxel, offset, step) -> float:
        index = [v + distance * o + s for v, o, s in zip(voxel, offset, step, strict=True)]
        return float(scan[tuple(min(max(i, 0), n - 1) for i, n in zip(index, scan.shape, strict=True))])

    distances = torch.zeros(len(pairs), *scan.shape, dtype=torch.float64)
    for voxel in itertools.product(*map(range, scan.shape)):
        for channel, (a, b) in enumerate(pairs):
            ssd = (w * (value(voxel, a, s) - value(voxel, b, s)) ** 2 for w, s in zip(weights, patch, strict=True))
            distances[(channel, *voxel)] = sum(ssd) / total
    variance = distances.mean(0)
    variance = variance.clamp(min=1e-3 * float(variance.mean()))
    descriptor = torch.exp(-distances / variance)
    return descriptor / descriptor.max(0).values


@pytest.mark.parametrize(("sigma", "distance"), [(0.5, 1), (0.33, 2)])
def test_both_forms_are_their_definition(sigma: float, distance: int) -> None:
    volume = noise(1, 1, *SHAPE)
    volume[..., :3, :2] = 0.5  # a flat corner, where the noise floor counts
    for fast, pairs in ((mind, FROM_CENTER), (mind_ssc, ACROSS)):
        got = fast(volume, sigma, distance)
        assert got.shape == (1, len(pairs), *SHAPE)
        expected = slowly(volume[0, 0], pairs, sigma, distance)[None]
        order = range(len(pairs)) if fast is mind else _by_pair(got[0], expected[0])
        torch.testing.assert_close(got, expected[:, list(order)], rtol=1e-9, atol=1e-12)


def _by_pair(got: torch.Tensor, expected: torch.Tensor) -> list[int]:
    """Say which channel of the loop is which: the order of the twelve pairs is free, each must occur once."""
    nearest = (got[:, None] - expected[None]).abs().flatten(2).amax(-1).argmin(1).tolist()
    assert sorted(nearest) == list(range(12))
    return nearest


@settings(max_examples=15)
@given(scale=st.floats(0.01, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 50))
def test_an_affine_change_of_intensity_changes_nothing(scale: float, shift: float, seed: int) -> None:
    volume = noise(1, 1, *SHAPE, seed=seed)
    for describe in (mind, mind_ssc):
        torch.testing.assert_close(describe(scale * volume + shift), describe(volume), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(describe(-scale * volume + shift), describe(volume), rtol=1e-5, atol=1e-6)


@settings(max_examples=15)
@given(seed=st.integers(0, 50), flat=st.integers(0, 4))
def test_values_lie_in_0_to_1_and_reach_1_at_every_voxel(seed: int, flat: int) -> None:
    volume = noise(1, 1, *SHAPE, seed=seed).float()
    volume[:, :, :flat] = 0
    for describe in (mind, mind_ssc):
        values = describe(volume)
        assert float(values.min()) > 0
        assert torch.equal(values.amax(1), torch.ones_like(values[:, 0]))


def test_a_constant_volume_is_all_ones_with_a_finite_gradient() -> None:
    for describe in (mind, mind_ssc):
        volume = torch.full((1, 1, *SHAPE), 0.3, requires_grad=True)
        values = describe(volume)
        assert torch.equal(values, torch.ones_like(values))
        values.sum().backward()
        assert volume.grad is not None
        assert bool(volume.grad.isfinite().all())


def test_a_batch_equals_its_parts() -> None:
    volumes = noise(3, 1, *SHAPE)
    volumes[2] *= 50
    for describe in (mind, mind_ssc):
        torch.testing.assert_close(describe(volumes), torch.cat([describe(v[None]) for v in volumes]))


def test_gradients_agree_with_differences() -> None:
    volume = noise(1, 1, 3, 3, 2).requires_grad_()
    for describe in (mind, mind_ssc):
        assert torch.autograd.gradcheck(lambda v, d=describe: d(v).square().sum(), (volume,))


def test_aligned_volumes_have_similar_descriptors_whatever_their_contrast() -> None:
    volume = noise(1, 1, 12, 12, 12)
    inverted = 1 - 0.5 * volume
    assert float((mind_ssc(volume) - mind_ssc(inverted)).square().mean()) < 1e-12
    assert float((mind_ssc(volume) - mind_ssc(inverted.roll(1, dims=2))).square().mean()) > 0.01


def test_bad_input_is_an_error() -> None:
    with pytest.raises(InputError, match="one channel, got 2"):
        mind(noise(1, 2, *SHAPE))
    with pytest.raises(InputError, match="sigma_voxel > 0"):
        mind_ssc(noise(1, 1, *SHAPE), sigma_voxel=0.0)
