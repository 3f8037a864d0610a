"""`crossalign train`: a run, its continuation, its use, and what it refuses."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tests.cli.quick_training import QUICK

from crossalign.cli.main import main
from crossalign.training import STRONG_AUGMENTATION


@pytest.fixture
def manifest(pair: Path) -> Path:
    path = pair / "training.csv"
    rows = [
        f"{split}{n},{split},mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm" for split in ("train", "val") for n in "12"
    ]
    path.write_text("case,split,fixed,moving,fixed_mask,reference\n" + "\n".join(rows) + "\n")
    return path


def test_a_run_stops_goes_on_and_its_weights_register(manifest: Path, tmp_path: Path, capfd) -> None:
    train = ["train", str(manifest), "-o", str(tmp_path / "run"), "--steps", "4", *QUICK]
    assert main([*train, "--minutes", "0.00001"]) == 0
    assert main(train) == 0
    out = capfd.readouterr().out
    assert "steps    4 (finished)" in out
    assert "val SRE" in out
    pair, weights = manifest.parent, tmp_path / "run" / "best.safetensors"
    register = ["register", str(pair / "mr.nii.gz"), str(pair / "us.nii.gz"), "--initial", str(pair / "start.tfm")]
    register += ["--fixed-mask", str(pair / "gland.nii.gz"), "--output-transform", str(tmp_path / "out.tfm")]
    assert main([*register, "--method", f"{weights}+{weights}"]) == 0
    assert (tmp_path / "out.tfm").is_file()
    assert main([*train, "--seed", "1"]) == 2
    assert "seed: was 0, now 1" in capfd.readouterr().err


def test_a_run_does_not_go_on_with_other_data(manifest: Path, tmp_path: Path, capfd) -> None:
    train = ["train", str(manifest), "-o", str(tmp_path / "run"), "--steps", "2", *QUICK]
    assert main(train) == 0
    text = manifest.read_text()
    swapped = text.replace(",train,", ",x,").replace(",val,", ",train,").replace(",x,", ",val,")
    for change, message in (
        (swapped, "case 'train1', split: was \"train\", now \"val\""),
        (text.replace("val2,val,mr.nii.gz,us.nii.gz", "val2,val,mr.nii.gz,mr.nii.gz"), "case 'val2', moving: another"),
        (text.replace("train1,train,mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm",
                      "train1,train,mr.nii.gz,us.nii.gz,gland.nii.gz,start.tfm"), "case 'train1', reference: another"),
    ):  # fmt: skip
        manifest.write_text(change)
        capfd.readouterr()
        assert main(train) == 2
        err = capfd.readouterr().err
        assert message in err
        assert "name another folder" in err
    manifest.write_text(text + "more,test,mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm\n")
    assert main(train) == 0  # of no matter for training
    simulated = ["train", "--simulate", "2", "-o", str(tmp_path / "sim"), "--steps", "1", *QUICK]
    assert main(simulated) == 0
    capfd.readouterr()
    assert main([*simulated[:2], "3", *simulated[3:]]) == 2
    assert "simulated.pairs: was 2, now 3" in capfd.readouterr().err


def test_a_stage_worse_than_no_registration_is_called_so(manifest: Path, tmp_path: Path, capfd) -> None:
    train = ["train", str(manifest), "--steps", "2", *QUICK, "--initial-sre-mm", "0.1,0.2"]
    assert main([*train, "-o", str(tmp_path / "run"), "--rate", "1"]) == 0
    out, err = capfd.readouterr()
    assert "worse than no registration: do not use it" in err
    assert main([*train, "-o", str(tmp_path / "better"), "--rate", "1e-4"]) == 0
    initial = ["--from", str(tmp_path / "better" / "best.safetensors"), "--rate", "1"]
    assert main([*train, "-o", str(tmp_path / "tuned"), *initial]) == 0
    out, err = capfd.readouterr()
    assert "no step was better than the weights that the run began with" in err
    assert "(step 0)" in out


def test_minutes_that_are_over_before_a_validation_promise_no_weights(manifest: Path, tmp_path: Path, capfd) -> None:
    train = ["train", str(manifest), "-o", str(tmp_path / "run"), "--steps", "4", *QUICK]
    assert main([*train, "--minutes", "0.0000001"]) == 0
    out = capfd.readouterr().out
    assert "no weights to use so far" in out
    assert "best.safetensors" not in out


def test_pairs_are_made_from_turned_training_cases(manifest: Path, tmp_path: Path, capfd) -> None:
    train = [
        "train",
        str(manifest),
        "-o",
        str(tmp_path / "run"),
        "--steps",
        "2",
        *QUICK,
        "--orientation-correction",
        "90",
    ]
    train += ["--augmentation-preset", "strong", "--augmentation.mirror", "y"]
    assert main([*train, "--synthesised-pairs", "3"]) == 2
    assert "every case needs a mask of its moving image" in capfd.readouterr().err
    rows = manifest.read_text().splitlines()
    masked = [rows[0] + ",moving_mask", *(row + ",us_gland.nii.gz" for row in rows[1:])]
    manifest.write_text("\n".join(masked) + "\n")
    assert main([*train, "--synthesised-pairs", "3"]) == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (settings["synthesised_pairs"], settings["orientation_correction"]) == (3, 90)
    assert settings["augmentation"] == asdict(replace(STRONG_AUGMENTATION, mirror="y"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either a MANIFEST or --simulate"),
        (["no.csv"], "no.csv: no such"),
        (["--simulate", "-1"], "0 or more"),
        (["--simulate", "4", "--stage.network", "oracle"], "oracle"),
        (["--simulate", "4", "--loss", "luck"], "luck"),
        (["--simulate", "4", "--loss", "guided"], "'guided' needs matches, which 'attention-reg' has not"),
        (
            ["--simulate", "4", "--stage.network", "correspondence", "--stage.crop-shape", "4,32,32"],
            "its smallest crop is 8,8,8",
        ),
        (
            ["--simulate", "4", "--stage.network", "correspondence", "--stage.crop-shape", "9,32,32"],
            "each a multiple of 4",
        ),
        (["--simulate", "99999999", "--steps", "1"], "--simulate must be 100000 or less"),
        (["--simulate", "4", "--steps", "0"], "steps"),
        (["--simulate", "4", "--stage.crop-shape", "big"], "--stage.crop-shape takes 3 values"),
        (["--simulate", "4", "--shapes-fraction", "1.5"], "--shapes-fraction must be 1 or less"),
        (["no.csv", "--shapes-fraction", "0.5"], "give --simulate"),
        (["--simulate", "4", "--synthesised-pairs", "9"], "for the cases of a manifest"),
        (["--simulate", "4", "--orientation-correction", "90"], "for the cases of a manifest"),
        (["--simulate", "4", "--orientation-correction", "45"], "must be one of"),
        (["no.csv", "--orientation-correction", "45"], "must be one of 0, 90, 180, 270, got '45'"),
        (["no.csv", "--synthesised-pairs", "-1"], "must be 0 or more"),
        (["no.csv", "--augmentation-preset", "wild"], "must be one of none, usual, strong, got 'wild'"),
        (["--simulate", "4", "--initial-sre-mm", "far"], "--initial-sre-mm takes 2 values"),
        (["--simulate", "4", "--from", "no.safetensors"], "no.safetensors"),
        (["--simulate", "4", "-o", "missing/run"], "make it first"),
        (["--simulate", "4", "-o", "mine"], "holds other files"),
        (["--simulate", "4", "-o", "mine/notes.txt"], "is a file"),
    ],
)
def test_bad_requests_to_train(tmp_path: Path, capfd, monkeypatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", "-o", "run", *words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("crossalign: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before
