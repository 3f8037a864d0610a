"""MSReg: the published counts, which layers are dead, any size, clear refusals."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.networks.originals import scrambled
from tests.networks.shifts import SIZE, correlation_after_training
from torch import Tensor

from crossalign.errors import InputError
from crossalign.networks import build_network, count_parameters
from crossalign.networks.msreg import GroupedConvolution, MSReg, UnusedLayers

SMALL = (12, 16, 16)


def pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator), torch.rand(*shape, generator=generator)


def test_published_parameter_counts() -> None:
    assert count_parameters(build_network("msreg")) == 10_850_630
    published = build_network("msreg-published")
    assert count_parameters(published) == 16_106_076
    assert count_parameters(published.get_submodule("unused")) == 5_255_446


def test_dead_layers_are_those_of_the_paper_and_get_no_gradient() -> None:
    torch.manual_seed(0)
    model = build_network("msreg-published", SMALL)
    model(*pair(4, 1, *SMALL)).square().sum().backward()
    dead = {name for name, value in model.named_parameters() if value.grad is None}
    assert dead == {name for name, _ in model.named_parameters() if name.startswith("unused.")}
    assert sum(model.get_parameter(name).numel() for name in dead) == 5_255_446
    assert {name.split(".")[1] for name in dead} == {"layer4", "classes", "linear1", "linear2"}
    assert model.get_parameter("unused.classes.weight").shape[0] == 400


def test_every_parameter_of_the_live_network_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = build_network("msreg", SMALL)
    model(*pair(4, 1, *SMALL)).square().sum().backward()
    zero = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert zero == []


def test_dead_layers_change_no_output() -> None:
    """From one seed both networks are drawn alike, and answer alike whatever the dead weights are."""
    torch.manual_seed(0)
    live = build_network("msreg", SMALL).eval()
    torch.manual_seed(0)
    published = build_network("msreg-published", SMALL).eval()
    scrambled(published.get_submodule("unused"))
    fixed, moving = pair(1, 1, *SMALL)
    with torch.no_grad():
        assert torch.equal(live(fixed, moving), published(fixed, moving))
        assert not torch.allclose(live(fixed, moving), live(moving, fixed))


def test_paper_size_leaves_76_800_numbers_for_the_linear_layers() -> None:
    model = MSReg()
    assert model.get_parameter("head.linear1.weight").shape == (128, 76_800)
    assert [len(layer) for layer in model.layers] == [3, 4, 23]  # type: ignore[arg-type]


@settings(max_examples=5)
@given(shape=st.tuples(st.integers(8, 20), st.integers(8, 20), st.integers(8, 20)), batch=st.integers(1, 2))
def test_any_size_gives_six_numbers(shape: tuple[int, int, int], batch: int) -> None:
    model = MSReg(shape).eval()
    with torch.no_grad():
        out = model(*pair(batch, 1, *shape))
    assert out.shape == (batch, 6)
    assert bool(out.isfinite().all())


@pytest.mark.parametrize(("channels", "stride"), [(32, 1), (16, 1), (16, 2), (64, 2)])
def test_dense_kernel_agrees_with_the_grouped_one(channels: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = GroupedConvolution(channels, stride).double()
    x = torch.randn(2, channels, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    slow = F.conv3d(x, layer.weight, None, stride, 1, groups=16)
    torch.testing.assert_close(layer(x), slow)
    weigh = torch.randn_like(slow)
    got = torch.autograd.grad((layer(x) * weigh).sum(), (x, layer.weight))
    torch.testing.assert_close(got, torch.autograd.grad((slow * weigh).sum(), (x, layer.weight)))


def test_in_the_layout_and_precision_of_training_it_says_the_same() -> None:
    torch.manual_seed(0)
    model = build_network("msreg", SMALL).eval()
    fixed, moving = pair(2, 1, *SMALL)
    with torch.no_grad():
        plain = model(fixed, moving)
        model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's hints lack it
        layout = [volume.contiguous(memory_format=torch.channels_last_3d) for volume in (fixed, moving)]
        torch.testing.assert_close(model(*layout), plain, atol=1e-5, rtol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(*layout).float(), plain, atol=0.02, rtol=0.1)


def test_learns_how_far_a_blob_went() -> None:
    torch.manual_seed(0)
    assert correlation_after_training(build_network("msreg", (SIZE, SIZE, SIZE)), steps=20, rate=1e-3) > 0.8


@pytest.mark.usefixtures("shape_checks_off")
@pytest.mark.parametrize("name", ["msreg", "msreg-published"])
@pytest.mark.parametrize("shape", [(7, 16, 16), (16, 16), (16, 7, 16), (16, 16, 0)])
def test_crops_that_are_too_small(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="needs 8 voxels or more on each of three axes, got"):
        build_network(name, shape)  # type: ignore[arg-type]


@pytest.mark.usefixtures("shape_checks_off")
def test_wrong_shapes() -> None:
    model = build_network("msreg", (8, 8, 8)).eval()
    volume = torch.rand(1, 1, 8, 8, 8)
    with pytest.raises(InputError, match=r"moving volume is \(1, 1, 8, 8, 9\), expected \(b, 1, 8, 8, 8\)"):
        model(volume, torch.rand(1, 1, 8, 8, 9))
    with pytest.raises(InputError, match="2 fixed and 1 moving"):
        model(volume.repeat(2, 1, 1, 1, 1), volume)


def test_unused_layers_alone() -> None:
    assert count_parameters(UnusedLayers()) == 16_106_076 - 10_850_630
