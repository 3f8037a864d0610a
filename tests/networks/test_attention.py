"""Cross-modal attention against Eq. 1 written out, and the promise that the map is never stored."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.networks.originals import scrambled
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from crossalign.errors import InputError
from crossalign.networks import CrossModalAttention
from crossalign.networks.attention import QUERIES, attended


def block(channels: int = 32, inner: int = 16, seed: int = 0) -> CrossModalAttention:
    made = CrossModalAttention(channels, inner)
    scrambled(made, seed)
    return made


def maps(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


def attention_map(module: CrossModalAttention, primary: Tensor, other: Tensor) -> Tensor:
    """The map itself, (b, positions of other, positions of primary), which `forward` never stores."""
    query, key = module.query(other).flatten(2), module.key(primary).flatten(2)
    return torch.softmax(query.mT @ key, dim=-1)


def equation_1(module: CrossModalAttention, primary: Tensor, other: Tensor) -> Tensor:
    """Eq. 1 with loops over positions, in float64: y_i = sum_j exp(q_i . k_j) v_j / sum_j exp(q_i . k_j)."""
    module, primary, other = module.double(), primary.double(), other.double()
    outputs = []
    for p, o in zip(primary.flatten(2), other.flatten(2), strict=True):  # (c, n)
        query, key, value = (
            layer.weight.flatten(1) @ x + layer.get_parameter("bias")[:, None]
            for layer, x in ((module.query, o), (module.key, p), (module.value, p))
        )
        columns = []
        for i in range(p.shape[1]):
            weights = [torch.exp(query[:, i] @ key[:, j]) for j in range(p.shape[1])]
            columns.append(sum(w * value[:, j] for j, w in enumerate(weights)) / sum(weights))
        outputs.append(torch.stack(columns, dim=1))
    gathered = torch.stack(outputs).unflatten(-1, primary.shape[2:])
    return torch.relu(module.norm(module.out(gathered)) + primary)


@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
)
def test_is_equation_1(seed: int, batch: int, size: tuple[int, int, int]) -> None:
    module, (primary, other) = block(8, 4, seed), maps(batch, 8, *size, seed=seed)
    with torch.no_grad():
        got = module(primary, other)
        expected = equation_1(module, primary, other)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-4)


@given(seed=st.integers(0, 1000), sharpness=st.sampled_from([0.1, 1.0, 30.0]))
def test_rows_of_the_map_sum_to_one(seed: int, sharpness: float) -> None:
    primary, other = maps(2, 32, 2, 3, 4, seed=seed)
    with torch.no_grad():
        rows = attention_map(block(seed=seed), primary * sharpness, other * sharpness)
    assert rows.shape == (2, 24, 24)
    assert bool((rows >= 0).all())
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 24))


@pytest.mark.parametrize("training", [False, True])
def test_fast_path_agrees_with_the_stored_map(training: bool) -> None:
    module, (primary, other) = block(), maps(2, 32, 4, 6, 5)
    module.train(training)
    with torch.no_grad():
        values = module.value(primary).flatten(2).mT  # (b, n, 16)
        gathered = (attention_map(module, primary, other) @ values).mT.unflatten(-1, primary.shape[2:])
        slow = torch.relu(module.norm(module.out(gathered)) + primary)
        module.norm.reset_running_stats() if training else None
        torch.testing.assert_close(module(primary, other), slow, atol=1e-5, rtol=1e-4)


def test_which_map_is_the_query_matters() -> None:
    module, (primary, other) = block(), maps(1, 32, 2, 3, 4)
    with torch.no_grad():
        shuffled = other.flatten(2)[..., torch.randperm(24, generator=torch.Generator().manual_seed(1))]
        ordered, mixed = (attention_map(module, primary, x) for x in (other, shuffled.unflatten(-1, other.shape[2:])))
        torch.testing.assert_close(ordered[0].sum(0), mixed[0].sum(0))  # the same rows in another order
        assert not torch.allclose(ordered, mixed)
        assert not torch.allclose(module(primary, other), module(other, primary))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True])
def test_map_is_never_stored(precision: torch.dtype, grad: bool) -> None:
    """At the paper's size the map takes 340 MB; nothing of even a quarter of that may be allocated."""
    shape = (16, 24, 24)
    module, (primary, other) = block(), maps(1, 32, *shape)
    autocast = torch.autocast("cpu", precision, enabled=precision != torch.float32)
    with autocast, torch.set_grad_enabled(grad), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        module(primary, other)
    events = run.events()
    kernel = "flash" if precision == torch.float32 else "ByParts"
    assert any(kernel in event.name for event in events), "the kernel that stores no map was not chosen"
    map_bytes = 4 * (16 * 24 * 24) ** 2
    assert max(event.cpu_memory_usage for event in events) < map_bytes / 4


def test_gradient_is_that_of_the_stored_map() -> None:
    module, (primary, other) = block(8, 4).double(), maps(1, 8, 2, 2, 3)
    primary, other = primary.double().requires_grad_(), other.double().requires_grad_()
    fast = torch.autograd.grad(module(primary, other).square().sum(), (primary, other))
    values = module.value(primary).flatten(2).mT
    gathered = (attention_map(module, primary, other) @ values).mT.unflatten(-1, primary.shape[2:])
    slow = torch.relu(module.norm(module.out(gathered)) + primary)
    for a, b in zip(fast, torch.autograd.grad(slow.square().sum(), (primary, other)), strict=True):
        torch.testing.assert_close(a, b)


def stored(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(query.double() @ key.double().mT, dim=-1) @ value.double()


@pytest.mark.parametrize("sharpness", [0.0, 0.5, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("count", [1, 7, QUERIES + 5])
def test_in_bfloat16_it_and_its_gradients_are_those_of_the_stored_map(sharpness: float, count: int) -> None:
    """Within what rounding to bfloat16 leaves; large logits, far from 0 on average, included."""
    generator = torch.Generator().manual_seed(count)
    sizes = ((2, count, 16), (2, 300, 16), (2, 300, 8), (2, count, 8))
    query, key, value, gradient = (torch.randn(size, generator=generator) for size in sizes)
    rounded = [part.bfloat16().requires_grad_() for part in (query * sharpness, key + 3, value)]
    got = attended(*rounded)
    assert got.dtype == torch.bfloat16
    exact = [part.detach().double().requires_grad_() for part in rounded]
    expected = stored(*exact)
    gradients = torch.autograd.grad(got, rounded, gradient.bfloat16())
    wanted = torch.autograd.grad(expected, exact, gradient.bfloat16().double())
    for one, other in ((got, expected), *zip(gradients, wanted, strict=True)):
        assert one.isfinite().all()
        scale = float(other.detach().norm()) + 1e-2  # with one key's weight alone, or none, a gradient is 0
        assert float((one.double() - other).detach().norm()) < (0.02 if sharpness < 1 else 0.06) * scale


@pytest.mark.usefixtures("shape_checks_off")
def test_refuses_maps_of_two_sizes() -> None:
    """Also where they have as many positions, which the arithmetic alone would let pass."""
    with pytest.raises(InputError, match="one size"):
        block()(torch.randn(1, 32, 2, 3, 4), torch.randn(1, 32, 4, 3, 2))
