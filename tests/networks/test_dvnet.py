"""The stand-in for DVNet: the published count, any size, clear refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.networks.shifts import SIZE, correlation_after_training
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.networks import build_network, count_parameters, dvnet
from crossalign.networks.dvnet import DVNetStandIn


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*shape, generator=generator), torch.rand(*shape, generator=generator)


def test_published_parameter_count() -> None:
    assert count_parameters(build_network("dvnet")) == 5_275_832


def test_is_called_a_stand_in() -> None:
    assert "stand-in" in str(dvnet.__doc__)
    assert "stand-in" in str(DVNetStandIn.__doc__)
    with pytest.raises(InputError, match=r"dvnet \(a stand-in\)"):
        build_network("dv-net")


def test_every_convolution_stays_in_the_plane() -> None:
    kernels = [m.kernel_size for m in DVNetStandIn((8, 8, 8)).modules() if isinstance(m, nn.Conv3d)]
    assert len(kernels) == 10
    assert {kernel[0] for kernel in kernels} == {1}


def test_slices_are_channels() -> None:
    """The first layer sees every slice of both volumes: turn their order and its weights, and nothing changes."""
    model = DVNetStandIn((8, 16, 16)).eval()
    first = model.convolutions[0]
    assert isinstance(first, nn.Sequential)
    weight = first[0].weight
    assert isinstance(weight, Tensor)
    assert weight.shape == (64, 16, 1, 3, 3)
    fixed, moving = pair(1, 1, 8, 16, 16)
    order = [*range(7, -1, -1)]
    with torch.no_grad():
        before = model(fixed, moving)
        weight.copy_(weight[:, [*order, *(8 + n for n in order)]])
        torch.testing.assert_close(model(fixed.flip(2), moving.flip(2)), before, atol=1e-5, rtol=1e-4)


@settings(max_examples=8)
@given(shape=st.tuples(st.integers(8, 20), st.integers(8, 20), st.integers(8, 20)), batch=st.integers(1, 2))
def test_any_size_gives_six_numbers(shape: tuple[int, int, int], batch: int) -> None:
    model = DVNetStandIn(shape).eval()
    with torch.no_grad():
        out = model(*pair(batch, 1, *shape))
    assert out.shape == (batch, 6)
    assert bool(out.isfinite().all())


def test_every_parameter_gets_a_gradient_in_the_layout_of_training() -> None:
    torch.manual_seed(0)
    model = build_network("dvnet", (16, 16, 16))
    model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's hints lack it
    model(*pair(4, 1, 16, 16, 16)).square().sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert missing == []


def test_learns_how_far_a_blob_went() -> None:
    torch.manual_seed(0)
    assert correlation_after_training(build_network("dvnet", (SIZE, SIZE, SIZE)), steps=25, rate=1e-3) > 0.8


@pytest.mark.usefixtures("shape_checks_off")
@pytest.mark.parametrize("shape", [(7, 16, 16), (16, 16), (16, 7, 16), (16, 16, 0)])
def test_crops_that_are_too_small(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="the crop of 'dvnet' needs 8 voxels or more on each of three axes"):
        build_network("dvnet", shape)  # type: ignore[arg-type]


@pytest.mark.usefixtures("shape_checks_off")
def test_wrong_shapes() -> None:
    model = build_network("dvnet", (8, 8, 8)).eval()
    with pytest.raises(InputError, match=r"fixed volume is \(1, 2, 8, 8, 8\), expected \(b, 1, 8, 8, 8\)"):
        model(torch.rand(1, 2, 8, 8, 8), torch.rand(1, 1, 8, 8, 8))
