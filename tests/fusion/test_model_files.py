"""Model files of fusion networks: they preserve everything, earlier ones still load, others are an error."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from jaxtyping import TypeCheckError
from safetensors.torch import save_file
from tests.fusion.test_compact import SMALL, pair

from crossalign.errors import InputError, WeightsError
from crossalign.fusion.networks.dcfb import DCFB
from crossalign.fusion.networks.model_files import (
    NETWORKS,
    RENAMED,
    FusionModel,
    build_fusion_network,
    load_fusion_model,
    run_fusion_network,
    save_fusion_model,
)
from crossalign.fusion.networks.settings import DCFBSettings, FusionStageSettings
from crossalign.models import Card
from crossalign.models.model_file import ModelContents, StageContents, save_model_file
from crossalign.models.pretrained import shipped_names

TINY_DCFB = DCFBSettings(channels=8, depths=(1,), heads=(2,))
OLD_PARTS = {new: old for old, new in RENAMED.items()}


def untrained(name: str) -> FusionModel:
    settings = FusionStageSettings(name, SMALL, TINY_DCFB)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return FusionModel(build_fusion_network(settings).eval(), settings, {"step": "3"}, Card(name="mine"))


def assert_same(found: FusionModel, expected: FusionModel) -> None:
    assert found.settings == expected.settings
    assert found.notes == expected.notes
    a, b = pair(16, 16, 16)
    assert torch.equal(*(run_fusion_network(model.network, a, b, 0.0) for model in (found, expected)))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    model = untrained(name)
    save_fusion_model(model, tmp_path / "x.safetensors")
    found = load_fusion_model(tmp_path / "x.safetensors")
    assert_same(found, model)
    assert found.card == model.card


def write_earlier_file(name: str, compact: Mapping[str, object], path: Path) -> FusionModel:
    """Write a model as earlier versions did."""
    model = untrained(name)
    settings = {"model": name, "compact": compact, "paper": asdict(TINY_DCFB)}
    metadata = {"format": "crossalign-fusion-1", "settings": json.dumps(settings), "notes": json.dumps(model.notes)}
    tensors = {
        ".".join(OLD_PARTS.get(part, part) for part in key.split(".")): value
        for key, value in model.network.state_dict().items()
    }
    assert any(".think." in key for key in tensors)
    save_file(tensors, path, metadata)
    return model


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    compact = {"channels": 8, "blocks": 1, "heads": 2, "climbs": 6, "steps": 6}  # not used
    model = write_earlier_file("dcfb", compact, tmp_path / "old.safetensors")
    found = load_fusion_model(tmp_path / "old.safetensors")
    assert_same(replace(found, settings=model.settings), model)


@pytest.mark.parametrize("names", [("climbs", "steps"), ("ssim_steps", "refinements")])
@pytest.mark.parametrize("network", ["dcfb-compact", "dcfb-compact-2d"])
def test_the_optimiser_of_earlier_versions_is_named(network: str, names: tuple[str, str], tmp_path: Path) -> None:
    compact = {"channels": 8, "blocks": 1, "heads": 2, names[0]: 6, names[1]: 6}
    write_earlier_file(network, compact, tmp_path / "old.safetensors")
    with pytest.raises(WeightsError, match=rf"old.safetensors: holds the '{network}' of an earlier.*`unrolled-ssim`"):
        load_fusion_model(tmp_path / "old.safetensors")


@pytest.mark.parametrize("network", ["dcfb-compact", "dcfb-compact-2d"])
def test_a_compact_network_without_steps_is_named(network: str, tmp_path: Path) -> None:
    model = untrained(network)
    weights = model.network.state_dict()
    weights |= {name: weights[name][:4] for name in ("out.weight", "out.bias")}
    stage = StageContents(weights, model.settings, model.notes)
    save_model_file(ModelContents("fusion", [stage], card=model.card), tmp_path / "old.safetensors")
    with pytest.raises(WeightsError, match=rf"holds the '{network}' of an earlier.*without steps.*`crossalign train"):
        load_fusion_model(tmp_path / "old.safetensors")


@pytest.mark.parametrize("name", ["dcfb-compact", "dcfb-compact-2d"])
def test_shipped_models_are_loaded_by_name(name: str) -> None:
    assert name in shipped_names("fusion")
    model = load_fusion_model(name)
    assert model.settings == FusionStageSettings(name)  # type: ignore[arg-type]
    assert model.card.name == name
    assert model.card.markdown().startswith(f"# Model card: {name}\n")
    assert all((model.card.data, model.card.command, model.card.licence, model.card.measured, model.card.limits))


def test_other_files_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weight file"):
        load_fusion_model(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(WeightsError, match="damaged"):
        load_fusion_model(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="no model file"):
        load_fusion_model(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="does not hold a fusion network"):
        load_fusion_model("correspondence-image")


def test_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    wrong = FusionModel(DCFB(TINY_DCFB), FusionStageSettings("dcfb-compact", SMALL))
    save_fusion_model(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match="do not fit"):
        load_fusion_model(tmp_path / "wrong.safetensors")


def test_invalid_settings_are_an_error() -> None:
    with pytest.raises(InputError, match="heads"):
        replace(SMALL, heads=3)
    with pytest.raises(InputError, match="odd"):
        replace(SMALL, kernel=4)
    with pytest.raises((InputError, TypeCheckError), match="dcfb-compact"):
        FusionStageSettings("unet")  # type: ignore[arg-type]
    assert set(get_args(get_type_hints(FusionStageSettings)["network"])) == set(NETWORKS)
