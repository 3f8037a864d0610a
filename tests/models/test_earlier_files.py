"""Weight files of earlier versions load: settings and tensors by their names of then, cascades as their notes say."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.networks.originals import scrambled

from crossalign.errors import WeightsError
from crossalign.models import Calibration, RunSettings, StageSettings, load_model, load_stage
from crossalign.models.earlier_files import current_tensor_name
from crossalign.models.extractors import load_extractors
from crossalign.networks import build_network, network_names

# What earlier versions called the parts of the correspondence network; the shipped stage files were written so.
EARLIER = {
    "fixed_layers": "fixed_rounds",
    "moving_layers": "moving_rounds",
    "cross_attention": "cross",
    "convolution": "near",
    "mlp": "think",
    "position": "place",
    "fixed_structure": "fixed_gland",
    "moving_structure": "moving_gland",
    "error_head": "doubt",
}


def write_stage(path: Path, name: str = "correspondence", seed: int = 0, **notes: str) -> torch.nn.Module:
    """Write a stage as earlier versions did, without a digest, and return its network."""
    network = scrambled(build_network(name, (8, 8, 8), 4.0), seed).eval()
    state = network.state_dict()
    state = {".".join(EARLIER.get(part, part) for part in key.split(".")): value for key, value in state.items()}
    settings = {"model": name, "crop_shape": [8, 8, 8], "crop_spacing_mm": 4.0, "working_spacing_mm": 2.0}
    settings |= {"fixed_input": "label"}
    metadata = {"format": "crossalign-stage-1", "settings": json.dumps(settings), "notes": json.dumps(notes)}
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata)
    return network


@pytest.mark.parametrize("name", network_names())
def test_a_stage_of_an_earlier_version_answers_as_it_did(name: str, tmp_path: Path) -> None:
    network = write_stage(tmp_path / "a.safetensors", name, steps="7")
    stage = load_stage(tmp_path / "a.safetensors")
    assert stage.settings == StageSettings(name, (8, 8, 8), 4.0, 2.0, "label")
    assert stage.notes == {"steps": "7"}
    fixed, moving = torch.rand(2, 2, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(stage.network(fixed, moving), network(fixed, moving))
    model = load_model(tmp_path / "a.safetensors")
    assert (model.run, model.calibration) == (RunSettings(), None)


def test_todays_names_stay() -> None:
    for name in network_names():
        for key in build_network(name, (8, 8, 8), 4.0).state_dict():
            assert current_tensor_name(key) == key


RUN = {
    "starts": 8,
    "spread_mm": 5.0,
    "seed": 3,
    "max_passes": 10,
    "tolerance_mm": 0.2,
    "search": {"shift_mm": 12.0, "turn_deg": 15.0},
    "calibration": {"base_mm": 0.5, "per_dispersion": 0.7, "per_network": 1.1, "threshold_mm": 6.0},
    "header_turns_deg": [270],
    "together": True,
    "later_share": 0.75,
    "later_share_z": 0.0,
}


def write_cascade(folder: Path, count: int, **change: object) -> list[Path]:
    paths = [folder / f"{number}.safetensors" for number in range(1, count + 1)]
    for seed, path in enumerate(paths[:-1]):
        write_stage(path, seed=seed)
    write_stage(paths[-1], seed=count, cascade=json.dumps({"stages": count, **RUN, **change}))
    return paths


def test_a_cascade_of_stage_files_is_run_as_its_last_file_says(tmp_path: Path) -> None:
    paths = write_cascade(tmp_path, 3)
    model = load_model(paths)
    assert model.run == RunSettings(8, 5.0, 3, 10, 0.2, 0.75, 0.0, True, 12.0, 15.0, orientation_correction=270)
    assert model.calibration == Calibration(0.5, 0.7, 1.1, 6.0)
    assert model.arrangement.layout(model.stages) == {"ensemble": [1, 2, 3]}
    assert "cascade" not in model.stages[-1].notes
    in_turn = load_model(write_cascade(tmp_path, 2, together=False, search=None, header_turns_deg=[0, 90, 180, 270]))
    assert in_turn.arrangement.layout(in_turn.stages) == {"cascade": [1, 2]}
    assert (in_turn.run.search, in_turn.run.orientation_correction) == (False, "auto")


def test_a_cascade_of_another_length_is_refused_or_run_as_is_said(tmp_path: Path) -> None:
    paths = write_cascade(tmp_path, 3)
    for given in (paths[1:], [*paths, paths[0]], paths[2:]):
        with pytest.raises(WeightsError, match=r"3\.safetensors: its settings were made for 3 stages, got "):
            load_model(given)
        run = RunSettings(max_passes=2)
        assert load_model(given, run=run).run == run
    assert load_stage(paths[2]).settings.network == "correspondence"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": 2.0}, "'stages' must be a whole number"),
        ({"stages": 10**6}, "'stages' must be a whole number in 1..100"),
        ({"starts": "many"}, "'initialisations' must be a whole number"),
        ({"starts": 10**9}, "'initialisations' must be 10000 or less"),
        ({"seed": -1}, "'seed' must be 0 or more"),
        ({"together": 1}, "'together' must be true or false"),
        ({"tomorrow": 1}, "'tomorrow' is no setting"),
        ({"search": 3}, "'search': expected entries by name"),
        ({"search": {"luck": 1}}, "'search.luck' is no setting"),
        ({"calibration": {**RUN["calibration"], "threshold_mm": "5"}}, "'calibration.threshold_mm' must be"),  # type: ignore[dict-item]
        ({"calibration": {"base_mm": 1}}, "'calibration.per_dispersion' is missing"),
        ({"header_turns_deg": 90}, "'header_turns_deg' must be a list"),
        ({"header_turns_deg": [45]}, "'orientation_correction' must be one of"),
    ],
)
def test_settings_of_cascades_name_what_is_wrong(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_stage(path, cascade=json.dumps({"stages": 1, **RUN, **change}))
    with pytest.raises(WeightsError, match=r"a\.safetensors") as error:
        load_model(path)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "3", "{}"])
def test_settings_of_cascades_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    write_stage(tmp_path / "a.safetensors", cascade=text)
    with pytest.raises(WeightsError, match="cascade's settings do not fit this version"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize("entry", [{"notes": "{"}, {"notes": "[]"}, {"notes": "null"}, {"settings": ""}, {"more": "1"}])
def test_descriptions_that_are_damaged(entry: dict[str, str], tmp_path: Path) -> None:
    metadata = {"format": "crossalign-stage-1", "settings": "{}", "notes": "{}"} | entry
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        load_model(tmp_path / "a.safetensors")


def test_extractors_of_an_earlier_version(tmp_path: Path) -> None:
    network = build_network("attention-reg", (8, 8, 8))
    tensors = {name: value for name, value in network.state_dict().items() if "_extractor." in name}
    metadata = {"format": "crossalign-extractors-1", "settings": json.dumps({"model": "attention-reg"}), "notes": "{}"}
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    back = load_extractors(tmp_path / "a.safetensors")
    assert back.settings == StageSettings("attention-reg")
    assert sorted(back.tensors) == sorted(tensors)
