"""The convolutions that are quick on a CPU against torch's own, and normalisation in the weights."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tests.networks.originals import scrambled
from torch import Tensor, nn

from crossalign.networks import AttentionReg
from crossalign.networks.convolution import Convolution3d, NormalisedConvolution, normalised


def volume(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@given(
    channels=st.sampled_from([1, 2, 3, 8]),
    stride=st.sampled_from([1, 2]),
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4)),
    last=st.booleans(),
)
def test_a_convolution_is_torchs(
    channels: int, stride: int, batch: int, size: tuple[int, int, int], last: bool
) -> None:
    quick = Convolution3d(channels, 5, 3, stride, 1)
    given = volume(batch, channels, *size)
    if last:
        given = given.contiguous(memory_format=torch.channels_last_3d)
    expected = F.conv3d(given, quick.weight, quick.bias, stride, 1)
    torch.testing.assert_close(quick(given), expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_torchs() -> None:
    quick, x = Convolution3d(3, 4, 3, 2, 1), volume(1, 3, 5, 6, 7).requires_grad_()
    got = torch.autograd.grad(quick(x).square().sum(), [x, *quick.parameters()])
    plain = F.conv3d(x, quick.weight, quick.bias, 2, 1).square().sum()
    for one, other in zip(got, torch.autograd.grad(plain, [x, *quick.parameters()]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("training", [False, True])
def test_a_normalisation_in_the_weights_is_the_layer_itself(kernel: int, training: bool) -> None:
    convolution, norm = Convolution3d(4, 6, kernel, 1, kernel // 2), nn.BatchNorm3d(6)
    scrambled(convolution)
    scrambled(norm)
    norm.train(training)
    mean = norm.get_buffer("running_mean")
    before, x = mean.clone(), volume(2, 4, 3, 4, 5)
    got = normalised(convolution, norm, x)
    assert torch.equal(before, mean) != training  # statistics follow in training alone
    torch.testing.assert_close(got, norm(nn.Conv3d.forward(convolution, x)), atol=1e-5, rtol=1e-5)


def test_layers_have_the_names_of_plain_ones() -> None:
    plain = nn.Sequential(nn.Conv3d(8, 32, 3, 1, 1, bias=False), nn.BatchNorm3d(32), nn.ReLU())
    assert list(NormalisedConvolution(8, 32).state_dict()) == list(plain.state_dict())


def test_attention_reg_in_bfloat16_is_near_itself_in_float32() -> None:
    """Its equality with the plain twin, at the paper's size, is in tests/models/test_published.py."""
    network = AttentionReg((8, 16, 16))
    scrambled(network, seed=1)
    fixed, moving = volume(1, 1, 8, 16, 16), volume(1, 1, 8, 16, 16).flip(4)
    with torch.inference_mode():
        exact = network(fixed, moving)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(fixed, moving)
    assert not torch.equal(exact, rough)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
