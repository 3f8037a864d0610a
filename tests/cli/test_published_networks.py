"""MSReg and the DVNet stand-in through the commands: train a few steps, register, evaluate."""

import csv
from pathlib import Path

import pytest
from tests.cli.quick_training import QUICK

from crossalign.cli.main import main


@pytest.mark.parametrize("model", ["msreg", "msreg-published", "dvnet"])
def test_train_then_register_and_evaluate(model: str, pair: Path, tmp_path: Path, capfd) -> None:
    row = "{split},{split},mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm\n"
    cases = pair / f"{model}.csv"
    cases.write_text(
        "case,split,fixed,moving,fixed_mask,reference\n" + row.format(split="train") + row.format(split="val")
    )
    train = [
        "train",
        str(cases),
        "--stage.network",
        model,
        "-o",
        str(tmp_path / "run"),
        "--steps",
        "2",
        "--val-initialisations",
        "1",
    ]
    assert main([*train, *QUICK]) == 0
    weights = tmp_path / "run" / "best.safetensors"
    register = ["register", str(pair / "mr.nii.gz"), str(pair / "us.nii.gz"), "--initial", str(pair / "start.tfm")]
    register += ["--fixed-mask", str(pair / "gland.nii.gz"), "--output-transform", str(tmp_path / "out.tfm")]
    assert main([*register, "--method", str(weights)]) == 0
    assert (tmp_path / "out.tfm").is_file()
    evaluate = ["evaluate", str(cases), "--split", "val", "--initial-sre-mm", "6", "--count", "1"]
    assert main([*evaluate, "--method", f"{model}={weights}", "-o", str(tmp_path / "t.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == [model]
    assert rows[0]["error"] == ""
    capfd.readouterr()


def test_too_small_a_crop_is_refused(pair: Path, tmp_path: Path, capfd) -> None:
    cases = pair / "small.csv"
    row = "{split},{split},mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm\n"
    cases.write_text(
        "case,split,fixed,moving,fixed_mask,reference\n" + row.format(split="train") + row.format(split="val")
    )
    train = [
        "train",
        str(cases),
        "--stage.network",
        "msreg",
        "-o",
        str(tmp_path / "run"),
        "--stage.crop-shape",
        "4,16,16",
    ]
    assert main(train) == 2
    assert "the crop of 'msreg' needs 8 voxels or more" in capfd.readouterr().err
