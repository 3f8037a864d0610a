"""The models of the package: cards, sizes, digests, and names to files."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from crossalign.errors import InputError, WeightsError
from crossalign.models import load_model, load_stage, pretrained, save_model
from crossalign.models.model_file import read_model_file
from crossalign.models.pretrained import WEIGHTS_FOLDER, shipped_file, shipped_names, shipped_path
from crossalign.registration.methods import DEFAULT_MODEL, named_method

NAMES = (*shipped_names(), *shipped_names("fusion"), *shipped_names("recognition"))
LARGEST_BYTES = 20_000_000
CPU = torch.device("cpu")


def test_the_folder_holds_models_and_nothing_else() -> None:
    assert sorted(path.name for path in WEIGHTS_FOLDER.iterdir()) == sorted(f"{name}.safetensors" for name in NAMES)
    assert DEFAULT_MODEL in shipped_names()
    assert sum(path.stat().st_size for path in WEIGHTS_FOLDER.iterdir()) < LARGEST_BYTES


@pytest.mark.parametrize("place", [0, 5000, -1])
def test_a_single_bit_of_damage_is_found(place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(WEIGHTS_FOLDER, tmp_path / "weights")
    monkeypatch.setattr(pretrained, "WEIGHTS_FOLDER", tmp_path / "weights")
    path = shipped_path("correspondence-image")
    assert path is not None
    assert path.is_relative_to(tmp_path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=r"correspondence-image\.safetensors: .*install crossalign again"):
        named_method("correspondence-image", CPU)
    path.unlink()
    assert shipped_path("correspondence-image") is None


@pytest.mark.parametrize("name", [*shipped_names(), *shipped_names("recognition")])
def test_every_model_has_a_card_that_says_what_a_card_must(name: str) -> None:
    card = shipped_file(name).card
    assert card.name == name
    for fact in (card.summary, card.network, card.input, card.data, card.command, card.hardware):
        assert fact
    assert card.licence.startswith("Apache-2.0")
    assert card.seed or "--seed" in card.command
    assert re.search(r"\d (minutes|hours)", card.hardware)
    assert card.measured is not None
    assert {len(row) for row in card.measured.rows} == {len(card.measured.columns)}
    assert card.limits
    assert card.markdown().startswith(f"# Model card: {name}\n")


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(InputError, match=f"called 'nobody': there are {NAMES[0]}"):
        shipped_file("nobody")
    with pytest.raises(InputError, match=f"unknown method 'nobody', expected one of .*{NAMES[0]}"):
        named_method("nobody", CPU)


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_models_go_through_the_users_path(name: str, tmp_path: Path) -> None:
    """Loaded by name, saved whole under another, loaded again: the same model."""
    model = load_model(name)
    save_model(model, tmp_path / "mine.safetensors")
    mine = load_model(tmp_path / "mine.safetensors")
    assert (mine.run, mine.calibration, mine.card) == (model.run, model.calibration, model.card)
    assert model.calibration is not None
    assert model.run.max_passes == 2
    assert len({stage.sha256 for stage in read_model_file(tmp_path / "mine.safetensors").stages}) == 2
    assert model.arrangement.layout(model.stages) == mine.arrangement.layout(mine.stages) == {"ensemble": [1, 2]}
    for ours, theirs in zip(mine.stages, model.stages, strict=True):
        for value, other in zip(ours.network.state_dict().values(), theirs.network.state_dict().values(), strict=True):
            assert torch.equal(value, other)


def test_training_goes_on_from_the_stage_that_the_model_names() -> None:
    model = load_model("correspondence-label")
    for number, stage in enumerate(model.stages, start=1):
        same = load_stage(f"correspondence-label:{number}")
        assert torch.equal(same.network.state_dict()["position.bias"], stage.network.state_dict()["position.bias"])
    bias = load_stage("correspondence-label").network.state_dict()["position.bias"]
    assert torch.equal(bias, model.stages[0].network.state_dict()["position.bias"])
