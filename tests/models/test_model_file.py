"""Stages: what is saved comes back; what is not a stage is refused, and nothing of the user's is overwritten."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.networks.originals import scrambled

from crossalign.errors import InputError, OutputError, WeightsError
from crossalign.models import Stage, StageSettings, load_stage, save_stage
from crossalign.networks import build_network, crop_points

SMALL = StageSettings("feature-reg", (8, 9, 10), 2.0, 1.5, "label")


def stage(settings: StageSettings = SMALL) -> Stage:
    model = scrambled(build_network(settings.network, settings.crop_shape))
    return Stage(model, settings, {"val_sre_mm": "4.321", "made of": "ünïcode"})


@pytest.mark.parametrize("name", ["attention-reg", "feature-reg"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_round_trip(name: str, channels_last: bool, tmp_path: Path) -> None:
    made = stage(StageSettings(name, (8, 9, 10), 2.25, 1.75, "label"))
    if channels_last:  # as the training loop holds its weights
        made.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    save_stage(made, tmp_path / "a.safetensors")
    back = load_stage(tmp_path / "a.safetensors")
    assert back.settings == made.settings
    assert back.notes == made.notes
    assert not back.network.training
    assert list(back.network.state_dict()) == list(made.network.state_dict())
    for ours, theirs in zip(back.network.state_dict().values(), made.network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    a, b = torch.rand(2, 1, 8, 9, 10), torch.rand(2, 1, 8, 9, 10)
    with torch.no_grad():
        torch.testing.assert_close(back.network(a, b), made.network(a, b), atol=1e-5, rtol=1e-5)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        save_stage(stage(), path)
    assert path.read_text() == "mine"
    with pytest.raises(OutputError, match="not a folder that exists"):
        save_stage(stage(), tmp_path / "nowhere" / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]
    save_stage(stage(), path, overwrite=True)
    assert load_stage(path).settings == SMALL


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none.safetensors", "no such weight file"), (tmp_path, "is a folder")):
        with pytest.raises(WeightsError, match=message):
            load_stage(path)
    save_file({"a": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match=r"foreign\.safetensors: not a trained stage of crossalign"):
        load_stage(tmp_path / "foreign.safetensors")
    torch.save(stage().network.state_dict(), tmp_path / "pickle.pth")
    with pytest.raises(WeightsError, match=r"pickle\.pth: not a safetensors file"):
        load_stage(tmp_path / "pickle.pth")


@settings(max_examples=25)
@given(share=st.floats(0, 0.9999))
def test_truncated_files(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    save_stage(stage(), folder / "whole.safetensors", overwrite=True)
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(WeightsError, match=r"cut\.safetensors: not a safetensors file, or damaged"):
        load_stage(folder / "cut.safetensors")


def rewritten(path: Path, metadata: dict[str, str] | None = None, drop: str = "") -> Path:
    """Write a stage with parts of it replaced."""
    save_stage(stage(), path)
    with safe_open(path, framework="pt") as file:
        kept = dict(file.metadata())
    tensors = {name: value for name, value in load_file(path).items() if name != drop}
    save_file(tensors, path, {k: v for k, v in {**kept, **(metadata or {})}.items() if v})
    return path


SETTINGS = {
    "model": "feature-reg",
    "crop_shape": [8, 9, 10],
    "crop_spacing_mm": 2.0,
    "working_spacing_mm": 1.5,
    "fixed_input": "label",
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        json.dumps({**SETTINGS, "model": "attention-reg"}),
        json.dumps({**SETTINGS, "model": "tomorrows-net"}),
        json.dumps({**SETTINGS, "crop_shape": [8, 9, 30]}),
        json.dumps({**SETTINGS, "crop_shape": [8, 9]}),
        json.dumps({**SETTINGS, "crop_shape": "abc"}),
        json.dumps({**SETTINGS, "crop_spacing_mm": -1}),
        json.dumps({**SETTINGS, "crop_spacing_mm": math.inf}),
        json.dumps({**SETTINGS, "working_spacing_mm": math.nan}),
        json.dumps({**SETTINGS, "fixed_input": "both"}),
        json.dumps({**SETTINGS, "new_setting": 1}),
    ],
)
def test_settings_that_do_not_fit(text: str, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "odd.safetensors", {"settings": text})
    with pytest.raises(WeightsError, match=r"odd\.safetensors: settings and weights do not fit"):
        load_stage(path)


@pytest.mark.parametrize("notes", ["{", "[]", "null"])
def test_notes_that_are_damaged(notes: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        load_stage(rewritten(tmp_path / "a.safetensors", {"notes": notes}))


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"head\.linear3\.bias"):
        load_stage(rewritten(tmp_path / "a.safetensors", drop="head.linear3.bias"))


def test_other_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="crossalign-stage-9"):
        load_stage(rewritten(tmp_path / "a.safetensors", {"format": "crossalign-stage-9"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "nobody"}, "no network is called 'nobody'"),
        ({"crop_shape": (3, 8, 8)}, "4 voxels or more"),
        ({"crop_spacing_mm": 0.0}, "over 0 mm"),
        ({"working_spacing_mm": math.nan}, "over 0 mm"),
        ({"fixed_input": "mask"}, "'image' or 'label'"),
    ],
)
def test_settings_check_themselves(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StageSettings(**change)  # type: ignore[arg-type]


def test_lattice_is_centred_and_ordered_x_y_z() -> None:
    lattice = crop_points((4, 5, 6), 2.0)
    assert lattice.shape == (4, 5, 6, 3)
    assert lattice.dtype == torch.float64
    torch.testing.assert_close(lattice.flatten(0, 2).mean(0), torch.zeros(3, dtype=torch.float64))
    step = torch.tensor([2.0, 2.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(lattice[1, 1, 1] - lattice[0, 0, 0], step)
    torch.testing.assert_close(lattice[0, 0, 1] - lattice[0, 0, 0], torch.tensor([2.0, 0, 0], dtype=torch.float64))
    assert StageSettings(crop_shape=(4, 5, 6), crop_spacing_mm=2.0).extent_mm() == 12.0
