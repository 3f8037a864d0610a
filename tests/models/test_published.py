"""The authors' checkpoints: their network, written once more, and ours give the same six numbers."""

import pickle
from collections import OrderedDict
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tests.networks.originals import PAPER, OriginalNetwork, scrambled
from torch import Tensor, nn

from crossalign.errors import WeightsError
from crossalign.models import load_original_checkpoint
from crossalign.networks import count_parameters

SMALL = (8, 16, 12)


@cache
def original(attention: bool, shape: tuple[int, int, int] = SMALL) -> nn.Module:
    return scrambled(OriginalNetwork(shape, attention))


def saved(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def with_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize(("attention", "count"), [(True, 1_248_777), (False, 1_244_393)])
def test_same_six_numbers_at_the_papers_size(attention: bool, count: int, tmp_path: Path) -> None:
    theirs = original(attention, PAPER)
    assert count_parameters(theirs) == count
    ours = load_original_checkpoint(saved(theirs.state_dict(), tmp_path / "network.pth"))
    generator = torch.Generator().manual_seed(1)
    mr, ultrasound = (torch.rand(1, 1, *PAPER, generator=generator) for _ in range(2))
    with torch.inference_mode():
        expected = theirs(mr, ultrasound)
        assert float(expected.abs().max()) > 0.1  # or the comparison would be empty
        torch.testing.assert_close(ours(mr, ultrasound), expected, atol=1e-4, rtol=0)
        assert not torch.allclose(theirs(ultrasound, mr), expected, atol=1e-3)


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pt"])
def test_files_and_prefixes(attention: bool, prefix: bool, suffix: str, tmp_path: Path) -> None:
    theirs = original(attention)
    state = with_prefix(theirs.state_dict()) if prefix else dict(theirs.state_dict())
    ours = load_original_checkpoint(saved(state, tmp_path / f"network{suffix}"), SMALL)
    assert not ours.training
    a, b = torch.rand(2, 1, *SMALL), torch.rand(2, 1, *SMALL)
    with torch.inference_mode():
        torch.testing.assert_close(ours(a, b), theirs(a, b), atol=1e-5, rtol=1e-5)


def test_old_and_wrapped_files(tmp_path: Path) -> None:
    """A state dict under `state_dict`, in the format before zip, without the counters that older torch did not keep."""
    state = OrderedDict((k, v) for k, v in original(True).state_dict().items() if "num_batches" not in k)
    torch.save({"state_dict": state, "epoch": 300}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    a, b = torch.rand(1, 1, *SMALL), torch.rand(1, 1, *SMALL)
    with torch.inference_mode():
        ours = load_original_checkpoint(tmp_path / "old.pth", SMALL)
        torch.testing.assert_close(ours(a, b), original(True)(a, b), atol=1e-5, rtol=1e-5)


class Harm:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.proof,))


@pytest.mark.parametrize("new", [True, False])
def test_refuses_code(new: bool, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    state = {**original(False).state_dict(), "fc3.bias": Harm(proof)}
    torch.save(state, tmp_path / "evil.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(WeightsError, match=r"evil\.pth: not a state dict of tensors that can be read safely"):
        load_original_checkpoint(tmp_path / "evil.pth", SMALL)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harm(proof)))
    with pytest.raises(WeightsError, match="read safely"):
        load_original_checkpoint(tmp_path / "plain.pth", SMALL)
    assert not proof.exists()


def test_wrong_names(tmp_path: Path) -> None:
    state = dict(original(True).state_dict())
    with pytest.raises(WeightsError, match=r"more\.pth: holds 'layer4\.0\.weight', which is no layer"):
        load_original_checkpoint(saved({**state, "layer4.0.weight": torch.zeros(3)}, tmp_path / "more.pth"), SMALL)
    with pytest.raises(WeightsError, match=r"deep\.pth: holds 'fc3\.weight\.weight'"):
        load_original_checkpoint(saved({**state, "fc3.weight.weight": torch.zeros(3)}, tmp_path / "deep.pth"), SMALL)
    del state["conv3d_8.bias"]
    with pytest.raises(WeightsError, match=r"less\.pth: .*Missing key.*conv3d_8\.bias"):
        load_original_checkpoint(saved(state, tmp_path / "less.pth"), SMALL)
    half = {k: v for k, v in original(True).state_dict().items() if not k.startswith("path2_block3")}
    with pytest.raises(WeightsError, match=r"half\.pth: .*path2_block3_NLCross"):
        load_original_checkpoint(saved(half, tmp_path / "half.pth"), SMALL)


def test_wrong_shapes(tmp_path: Path) -> None:
    path = saved(dict(original(False).state_dict()), tmp_path / "small.pth")
    with pytest.raises(WeightsError, match=r"small\.pth: .*size mismatch for fc1\.weight"):
        load_original_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, {"a": 1}, {1: torch.zeros(2)}, {"state_dict": {"fc1.weight": "x"}}, torch.zeros(3)],
    ids=repr,
)
def test_not_a_state_dict(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth: expected a state dict"):
        load_original_checkpoint(tmp_path / "other.pth", SMALL)


def test_missing_files(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "nothing.pth", "no such checkpoint"), (tmp_path, "is a folder")):
        with pytest.raises(WeightsError, match=message):
            load_original_checkpoint(path)


@cache
def contents(kind: str, folder: Path) -> bytes:
    path = folder / ("whole.safetensors" if kind == "safetensors" else "whole.pth")
    state = dict(original(False).state_dict())
    if kind == "old":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        saved(state, path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fraction=st.floats(0, 0.999))
def test_truncated_files(kind: str, fraction: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = contents(kind, folder)
    path = folder / f"cut{'.safetensors' if kind == 'safetensors' else '.pth'}"
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(WeightsError):
        load_original_checkpoint(path, SMALL)


FIRST_BYTES = [b"", b"\x80\x02", b"\x80\x02}q\x00", b"\x80\x04", b"PK\x03\x04"]


@settings(max_examples=60)
@given(
    junk=st.binary(max_size=60),
    first=st.sampled_from(FIRST_BYTES),
)
def test_junk(junk: bytes, first: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("junk.pth", "junk.safetensors"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(first + junk)
        with pytest.raises(WeightsError):
            load_original_checkpoint(path, SMALL)
