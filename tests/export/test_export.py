"""Exported networks: what the files hold, and that onnxruntime computes what the networks do."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import config
from torch import nn

from crossalign.cli.main import main
from crossalign.errors import InputError, WeightsError
from crossalign.export import onnx_file
from crossalign.export.exporting import ExportChoice, Exported, export_model, output_paths
from crossalign.export.graphs import Graph, fusion_graph, registration_graph
from crossalign.export.onnx_file import TOLERANCE, export_graph
from crossalign.fusion.networks.compact import DCFBCompact
from crossalign.fusion.networks.dcfb import DCFB
from crossalign.fusion.networks.settings import CompactSettings, DCFBSettings
from crossalign.models import Ensemble, Model, RunSettings, Stage, StageSettings, load_model, save_model
from crossalign.networks.registry import build_network
from crossalign.onnx_runtime.description import NOTE, description_of
from crossalign.onnx_runtime.session import open_session

SHAPE = (16, 16, 16)
SMALLEST = (8, 8, 8)
# Tracing takes seconds for each network: a test run exports one. `crossalign export` checks every file itself.
EVERY = pytest.mark.skipif(not os.environ.get("CROSSALIGN_EVERY_EXPORT"), reason="CROSSALIGN_EVERY_EXPORT=1 runs it")


@pytest.fixture(autouse=True, scope="module")
def unchecked() -> Iterator[None]:
    """Shapes are not checked against annotations: that would fix the size of the batch while a network is traced."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def small_stage(seed: int) -> Stage:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network("correspondence-short", SHAPE, 4.0).eval()
    return Stage(network, StageSettings("correspondence-short", SHAPE, 4.0), {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two networks, not trained."""
    path = tmp_path_factory.mktemp("model") / "two.safetensors"
    save_model(Model(Ensemble((small_stage(0), small_stage(1))), RunSettings(max_passes=2)), path)
    return path


@pytest.fixture(scope="module")
def exported(model: Path) -> Exported:
    (one,) = export_model(ExportChoice(str(model), stage=2), model.with_name("net.onnx"))
    return one


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_file_agrees_with_the_network_on_any_batch(exported: Exported, model: Path) -> None:
    assert exported.agreement.largest <= TOLERANCE
    session = open_session(exported.path)
    network: Any = load_model(model).stages[1].network
    generator = torch.Generator().manual_seed(7)
    for count in (1, 4):
        crops = [torch.rand(count, 1, *SHAPE, generator=generator) for _ in range(2)]
        none = torch.eye(3).expand(count, 3, 3)
        inputs = dict(zip(("fixed", "moving", "attraction_mm2"), (one.numpy() for one in (*crops, none)), strict=True))
        parameters, expected_mm = session.run(["parameters", "expected_sre_mm"], inputs)
        with torch.no_grad():
            wanted, wanted_mm = network.forward_with_error(*crops)
        assert parameters.shape == (count, 6)
        assert torch.allclose(torch.from_numpy(parameters), wanted, atol=TOLERANCE)
        assert torch.allclose(torch.from_numpy(expected_mm), wanted_mm, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_file_says_what_it_is(exported: Exported, model: Path) -> None:
    metadata = open_session(exported.path).get_modelmeta().custom_metadata_map
    assert metadata["note"] == NOTE == "Research software, not a medical device."
    assert metadata["name"] == "two"
    assert metadata["stage"] == "2 of 2"
    assert metadata["spacing_mm"] == "4"
    assert metadata["direction"].startswith("fixed_to_moving")
    assert "mm" in metadata["units"]
    assert json.loads(metadata["shapes"])["fixed"] == "batch x 1 x 16 x 16 x 16"
    assert metadata["sha256"] == exported.description.sha256[1] != exported.description.sha256[0]
    assert description_of(metadata, "net.onnx") == exported.description
    assert exported.description.run_settings() == RunSettings(max_passes=2)


def test_a_file_of_somebody_else_is_refused() -> None:
    with pytest.raises(WeightsError, match="holds no network that `crossalign export` wrote"):
        description_of({"format": "another"}, "net.onnx")
    with pytest.raises(WeightsError, match="export the network again"):
        description_of({"format": "crossalign-onnx-1"}, "net.onnx")
    with pytest.raises(WeightsError, match="no ONNX file"):
        open_session(b"damaged")


def test_several_networks_get_names_of_their_own(tmp_path: Path) -> None:
    assert output_paths(tmp_path / "net.onnx", 2, (1, 2)) == (tmp_path / "net-1.onnx", tmp_path / "net-2.onnx")
    assert output_paths(tmp_path / "net.onnx", 2, (2,)) == (tmp_path / "net.onnx",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nothing -o net.onnx", "no such weight file"),
        ("orientation -o net.pt", "ends in .onnx"),
        ("correspondence-image --stage 3 -o net.onnx", "has 2 networks, got stage 3"),
        ("dcfb-compact --volume-shape 20,32,32 -o net.onnx", "multiples of 16"),
        ("orientation --volume-shape 32,32,32 -o net.onnx", "for fusion networks"),
    ],
)
def test_what_cannot_be_exported_is_said(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *words.split()]) == 2
    assert said in capsys.readouterr().err
    assert not Path("net.onnx").exists()


def test_nothing_is_written_where_the_file_would_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(nn.Module):
        def forward(self, value: torch.Tensor) -> tuple[torch.Tensor]:
            return (2 * value,)

    def tripled(value: torch.Tensor) -> tuple[torch.Tensor]:
        return (3 * value,)

    def draw(count: int, generator: torch.Generator) -> tuple[torch.Tensor]:
        return (torch.rand(count, 2, generator=generator),)

    doubled = Graph(Doubled(), {"value": ("batch", 2)}, ("found",), tripled, draw)
    wrong = b"what the exporter makes of it, without the exporter: see below"
    monkeypatch.setattr(onnx_file, "_content", lambda *_: wrong)
    monkeypatch.setattr(onnx_file, "open_session", lambda _: _Session())
    with pytest.raises(InputError, match=r"differs from the network by more than 0\.0001"):
        export_graph(doubled, {}, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


class _Session:
    def run(self, _: object, inputs: dict[str, object]) -> list[object]:
        return [2 * inputs["value"]]  # type: ignore[operator]


@EVERY
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["attention-reg", "feature-reg", "msreg", "dvnet", "correspondence-fc"])
def test_every_kind_of_registration_network(name: str, tmp_path: Path) -> None:
    graph = registration_graph(build_network(name, SMALLEST, 4.0).eval(), SMALLEST)
    assert export_graph(graph, {"note": NOTE}, tmp_path / "net.onnx").largest <= TOLERANCE


@EVERY
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("network", "size"),
    [
        (DCFBCompact(CompactSettings(channels=8, context=4, hidden=4)), 16),
        (DCFBCompact(CompactSettings(channels=8, context=4, hidden=4), planar=True), 16),
        (DCFB(DCFBSettings(channels=6, depths=(1, 1), heads=(1, 2))), 16),
    ],
    ids=["compact", "compact-2d", "dcfb"],
)
def test_every_kind_of_fusion_network(network: nn.Module, size: int, tmp_path: Path) -> None:
    graph = fusion_graph(network.eval(), (size, size, size))
    assert export_graph(graph, {"note": NOTE}, tmp_path / "net.onnx").largest <= TOLERANCE


@EVERY
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_recognition_network(tmp_path: Path) -> None:
    (one,) = export_model(ExportChoice("orientation"), tmp_path / "net.onnx")
    assert one.agreement.largest <= TOLERANCE
    assert one.description.task == "recognition"
