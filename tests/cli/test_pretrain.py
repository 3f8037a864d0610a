"""`crossalign pretrain` and `train --pretrained`: a run end to end, and what they refuse."""

import json
from pathlib import Path

import pytest
from tests.cli.quick_training import QUICK

from crossalign.cli.main import main
from crossalign.cli.requests.training import TrainRequest
from crossalign.cli.training import run_train
from crossalign.errors import InputError
from crossalign.models import load_stage
from crossalign.models.extractors import load_extractors


@pytest.fixture
def manifest(pair: Path) -> Path:
    path = pair / "pretraining.csv"
    rows = [
        f"{split}{n},{split},mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm"
        for split in ("train", "val")
        for n in "1234"
    ]
    path.write_text("case,split,fixed,moving,fixed_mask,reference\n" + "\n".join(rows) + "\n")
    return path


def test_pretrain_then_train(manifest: Path, tmp_path: Path, capfd) -> None:
    before = ["pretrain", str(manifest), "-o", str(tmp_path / "pre"), "--steps", "2", "--tokens", "16", *QUICK]
    assert main([*before, "--minutes", "0.00001"]) == 0
    assert main(before) == 0
    out = capfd.readouterr().out
    assert "steps    2 (finished)" in out
    assert "before   " in out
    assert "after    " in out
    assert "chance" in out
    best = tmp_path / "pre" / "best.safetensors"
    train = ["train", str(manifest), "--steps", "2", *QUICK, "--pretrained", str(best)]
    assert main([*train, "-o", str(tmp_path / "run"), "--patients", "0.5"]) == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["pretrained"] == f"best.safetensors, SHA-256 {load_extractors(best).digest()}"
    assert settings["patients"] == 0.5
    data = settings.pop("data")
    assert list(data["cases"]) == [f"{split}{n}" for split in ("train", "val") for n in "1234"]
    notes = load_stage(tmp_path / "run" / "best.safetensors").notes
    assert json.loads(notes["training"]) == settings
    assert "train1" not in str(notes)  # weights are passed on: they name no case
    assert main([*train, "-o", str(tmp_path / "other"), "--stage.crop-spacing-mm", "5"]) == 2
    assert "pre-trained with crop_spacing_mm 4.0, this stage has 5.0" in capfd.readouterr().err
    stage = (tmp_path / "run" / "best.safetensors").rename(tmp_path / "stage.safetensors")
    assert main([*train, "-o", str(tmp_path / "run"), "--pretrained", str(stage)]) == 2
    assert "does not hold pre-trained extractors" in capfd.readouterr().err


def test_two_beginnings_are_refused(tmp_path: Path) -> None:
    two = TrainRequest(
        output=tmp_path / "run", simulate=4, initial="correspondence-image", pretrained=tmp_path / "b.st"
    )
    with pytest.raises(InputError, match="give one of them"):
        run_train(two)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrain"], "either a MANIFEST or --simulate"),
        (["pretrain", "no.csv"], "no.csv: no such"),
        (["pretrain", "--simulate", "4", "--stage.network", "oracle"], "oracle"),
        (["pretrain", "--simulate", "4", "--stage.network", "msreg"], "MSReg has no separate extractors"),
        (["pretrain", "--simulate", "4", "--temperature", "0"], "temperature"),
        (["pretrain", "--simulate", "4", "--head", "deep"], "head"),
        (["pretrain", "--simulate", "4", "--initial-sre-mm", "far"], "--initial-sre-mm takes 2 values"),
        (["pretrain", "--simulate", "4", "--stage.crop-shape", "big"], "--stage.crop-shape takes 3 values"),
        (["pretrain", "--simulate", "4", "--patients", "0.5"], "smaller COUNT"),
        (["pretrain", "--simulate", "4", "--patients", "2"], "--patients must be 1 or less"),
        (["pretrain", "--simulate", "4", "-o", "missing/run"], "make it first"),
        (["train", "--simulate", "4", "--patients", "0.5"], "smaller COUNT"),
        (["train", "no.csv", "--patients", "0"], "--patients must be over 0"),
        (["train", "--simulate", "4", "--pretrained", "no.safetensors"], "no such weight file"),
    ],
)
def test_bad_requests(tmp_path: Path, capfd, monkeypatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([words[0], "-o", "run", *words[1:]]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("crossalign: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []
