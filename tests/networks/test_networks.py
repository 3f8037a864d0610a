"""Attention-Reg and Feature-Reg: the published counts, any size, clear refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossalign.errors import InputError
from crossalign.networks import AttentionReg, CorrespondenceReg, build_network, count_parameters, network_names
from crossalign.networks.attention_reg import feature_shape
from crossalign.networks.capabilities import ExpectsError, shown_attention
from crossalign.networks.tokens import Attention


@pytest.mark.parametrize(("name", "count"), [("attention-reg", 1_248_777), ("feature-reg", 1_244_393)])
def test_published_parameter_counts(name: str, count: int) -> None:
    assert count_parameters(build_network(name)) == count
    assert count_parameters(build_network(name, (32, 96, 96))) == count


def test_counts_only_what_is_trained() -> None:
    model = build_network("feature-reg", (8, 8, 8))
    before = count_parameters(model)
    model.get_parameter("head.linear3.weight").requires_grad_(False)
    assert count_parameters(model) == before - 32 * 6


@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(4, 17), st.integers(4, 17), st.integers(4, 17)),
    attention=st.booleans(),
    batch=st.integers(1, 3),
)
def test_any_size_gives_six_numbers(shape: tuple[int, int, int], attention: bool, batch: int) -> None:
    model = AttentionReg(shape, attention).eval()
    volume = torch.rand(batch, 1, *shape)
    with torch.no_grad():
        out = model(volume, volume)
        features = model.fixed_extractor(volume)
    assert out.shape == (batch, 6)
    assert bool(out.isfinite().all())
    assert features.shape == (batch, 32, *feature_shape(shape))


def test_paper_size_has_the_papers_positions() -> None:
    assert feature_shape((32, 96, 96)) == (16, 24, 24)


@pytest.mark.parametrize("name", ["attention-reg", "feature-reg"])
def test_label_mode_takes_a_mask_and_the_two_inputs_differ(name: str) -> None:
    torch.manual_seed(0)
    model = build_network(name, (8, 12, 12)).eval()
    mask = torch.zeros(1, 1, 8, 12, 12)
    mask[..., 2:6, 3:9, 3:9] = 1
    image = torch.rand(1, 1, 8, 12, 12)
    with torch.no_grad():
        assert not torch.allclose(model(mask, image), model(image, mask))
        assert not torch.allclose(model(mask, image), model(image, image))


@pytest.mark.parametrize("name", ["attention-reg", "feature-reg"])
def test_eval_treats_each_pair_by_itself_and_keeps_nothing(name: str) -> None:
    torch.manual_seed(0)
    model = build_network(name, (8, 8, 8)).eval()
    a, b = torch.rand(3, 1, 8, 8, 8), torch.rand(3, 1, 8, 8, 8)
    before = set(vars(model))
    with torch.no_grad():
        batch = model(a, b)
        apart = torch.cat([model(a[n : n + 1], b[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(batch, apart, atol=1e-5, rtol=1e-4)
    assert set(vars(model)) == before


@pytest.mark.parametrize("name", ["attention-reg", "feature-reg"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = build_network(name, (8, 8, 8))
    model(torch.rand(4, 1, 8, 8, 8), torch.rand(4, 1, 8, 8, 8)).square().sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert missing == []


@pytest.mark.usefixtures("shape_checks_off")
@pytest.mark.parametrize(
    ("fixed", "moving", "message"),
    [
        ((1, 1, 8, 8, 9), (1, 1, 8, 8, 8), r"fixed volume is \(1, 1, 8, 8, 9\), expected \(b, 1, 8, 8, 8\)"),
        ((1, 1, 8, 8, 8), (1, 1, 8, 9, 8), r"moving volume is \(1, 1, 8, 9, 8\)"),
        ((1, 2, 8, 8, 8), (1, 1, 8, 8, 8), r"fixed volume is \(1, 2, 8, 8, 8\)"),
        ((8, 8, 8), (1, 1, 8, 8, 8), r"fixed volume is \(8, 8, 8\)"),
        ((2, 1, 8, 8, 8), (1, 1, 8, 8, 8), "2 fixed and 1 moving"),
    ],
)
def test_wrong_shapes(fixed: tuple[int, ...], moving: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_network("attention-reg", (8, 8, 8)).eval()(torch.rand(fixed), torch.rand(moving))


def test_wrong_shape_is_refused_by_both_paths_alike() -> None:
    volume = torch.rand(1, 1, 8, 8, 10)
    with pytest.raises(InputError, match=r"expected \(b, 1, 8, 8, 8\)"):
        build_network("feature-reg", (8, 8, 8)).eval()(volume, volume)


@pytest.mark.usefixtures("shape_checks_off")
@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8), (8, 8, 8, 8), (0, 8, 8), (8, 8, -4)])
def test_impossible_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="4 voxels or more on each of three axes"):
        build_network("attention-reg", shape)  # type: ignore[arg-type]


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(InputError, match=r"no network is called 'attention'.*attention-reg, feature-reg"):
        build_network("attention")
    assert {"attention-reg", "feature-reg"} <= set(network_names())


@settings(max_examples=10)
@given(shape=st.tuples(*[st.sampled_from([8, 12, 16])] * 3), spacing_mm=st.floats(0.5, 5), batch=st.integers(1, 2))
def test_correspondence_answers_within_the_crop(shape: tuple[int, int, int], spacing_mm: float, batch: int) -> None:
    torch.manual_seed(0)
    model = build_network("correspondence", shape, spacing_mm).eval()
    assert isinstance(model, CorrespondenceReg)
    fixed, moving = torch.rand(2, batch, 1, *shape)
    with torch.no_grad():
        out = model(fixed, moving)
        found = model.match(fixed, moving)
    assert out.shape == (batch, 6)
    assert bool(out.isfinite().all())
    torch.testing.assert_close(found.weight.sum(-1), torch.ones(batch))
    reach = found.positions_mm.abs().amax((0, 1)) + 4 * spacing_mm
    assert bool((found.matches_mm.abs() <= reach + 1e-4).all())


def test_correspondence_in_training_and_in_use_agree() -> None:
    """Two ways to attend: the plain one in training, the fused one in use."""
    torch.manual_seed(0)
    layer = Attention(64)
    tokens, source = torch.randn(2, 9, 64), torch.randn(2, 7, 64)
    with torch.no_grad():
        torch.testing.assert_close(layer.train()(tokens, source), layer.eval()(tokens, source), atol=1e-5, rtol=1e-4)


def test_every_parameter_of_correspondence_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = build_network("correspondence", (8, 8, 8))
    assert isinstance(model, CorrespondenceReg)
    found = model.match(torch.rand(4, 1, 8, 8, 8), torch.rand(4, 1, 8, 8, 8))
    parts = (found.motion.translation_mm, found.motion.rotation, found.fixed_structure, found.moving_structure)
    sum(((part.square().sum() for part in parts)), model.expected_sre_mm(found).sum()).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert missing == []


def test_training_the_expected_error_leaves_the_matches_as_they_are() -> None:
    torch.manual_seed(0)
    model = build_network("correspondence", (8, 8, 8))
    assert isinstance(model, CorrespondenceReg)
    found = model.match(torch.rand(4, 1, 8, 8, 8), torch.rand(4, 1, 8, 8, 8))
    model.expected_sre_mm(found).sum().backward()
    assert {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None} == {"error_head"}


def test_forward_with_error_answers_as_forward_does() -> None:
    torch.manual_seed(0)
    model = build_network("correspondence", (8, 12, 8)).eval()
    assert isinstance(model, CorrespondenceReg)
    assert isinstance(model, ExpectsError)
    fixed, moving = torch.rand(2, 3, 1, 8, 12, 8)
    with torch.no_grad():
        parameters, expected = model.forward_with_error(fixed, moving)
        torch.testing.assert_close(parameters, model(fixed, moving))
    assert expected.shape == (3,)
    assert bool((expected > 0).all())


@pytest.mark.parametrize("name", network_names())
def test_networks_that_show_their_attention_say_so(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, (8, 8, 8)).eval()
    attention = shown_attention(network)
    assert (attention is not None) == (
        name in {"attention-reg", "correspondence", "correspondence-short", "correspondence-deep"}
    )
    if attention is None:
        return
    blocks, tokens = attention.attention_blocks(), attention.token_grid()
    assert len({block.name for block in blocks}) == len(blocks)
    assert {block.side for block in blocks} == {"fixed", "moving"}
    count = tokens.shape[0] * tokens.shape[1] * tokens.shape[2]
    fixed, moving = torch.rand(2, 1, 1, 8, 8, 8)
    with torch.no_grad():
        row = attention.attention_row(fixed, moving, count - 1)
    torch.testing.assert_close(row.weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert row.weights.shape == (count,)
    assert (row.match_offset_mm is not None) == name.startswith("correspondence")


@pytest.mark.usefixtures("shape_checks_off")
def test_correspondence_refuses_other_sizes() -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        build_network("correspondence", (8, 8, 10))
    with pytest.raises(InputError, match=r"moving volume is \(1, 1, 8, 8, 12\)"):
        build_network("correspondence", (8, 8, 8)).eval()(torch.rand(1, 1, 8, 8, 8), torch.rand(1, 1, 8, 8, 12))
