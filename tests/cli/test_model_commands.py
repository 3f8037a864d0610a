"""Shipped weights on the command line: list, cards, fine-tuning, and what they expect of themselves."""

import csv
import json
from pathlib import Path

import pytest
import torch

from crossalign.cli.main import main
from crossalign.models import (
    Calibration,
    Ensemble,
    Model,
    RunSettings,
    Stage,
    StageSettings,
    load_model,
    load_stage,
    save_model,
)
from crossalign.models.pretrained import shipped_file, shipped_names
from crossalign.networks import build_network
from crossalign.registration.methods import default_method_name

NAME = default_method_name()
ONE = "correspondence-image"  # training goes on from its first stage


def run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    status = main([str(word) for word in words])
    out, err = capfd.readouterr()
    assert status == 0, err
    return out, err


def refused(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


SHIPPED = [*shipped_names(), *shipped_names("fusion"), *shipped_names("recognition")]


def test_models_lists_methods_and_models_of_both_kinds(capfd) -> None:
    out, _ = run(capfd, "models")
    rows = {line.split()[0]: line for line in out.splitlines()[1:] if line}
    assert {"identity", "mi", *SHIPPED} <= set(rows)
    for name in SHIPPED:
        assert all(stage.sha256[:12] in rows[name] for stage in shipped_file(name).stages)
        assert "Apache-2.0" in rows[name]
    assert rows[NAME].split()[1:3] == ["*", "registration"]


@pytest.mark.parametrize("name", SHIPPED)
def test_models_prints_a_card_and_the_stages(capfd, name: str) -> None:
    out, _ = run(capfd, "models", name)
    file = shipped_file(name)
    assert out.startswith(file.card.markdown().rstrip())
    for stage in file.stages:
        assert f"SHA-256 {stage.sha256}" in out


def test_models_of_an_unknown_name(capfd) -> None:
    assert "no shipped model is called 'nobody'" in refused(capfd, "models", "nobody")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained stage: its answers scatter as its initialisations do."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    torch.manual_seed(0)
    settings = StageSettings("feature-reg", (16, 16, 16), 5.0, 2.0)
    save_model(Model(Stage(build_network(settings.network, settings.crop_shape).eval(), settings, {})), path)
    return path


def to_register(pair: Path, folder: Path, method: Path) -> list[object]:
    words: list[object] = ["register", pair / "mr.nii.gz", pair / "us.nii.gz", "--fixed-mask", pair / "gland.nii.gz"]
    return [*words, "--initial", "mask-center", "--method", method, "--output-transform", folder / "a.tfm"]


def test_a_table_is_calibrated_into_weights(pair: Path, small: Path, tmp_path: Path, capfd) -> None:
    table, made = tmp_path / "t.csv", tmp_path / "calibrated.safetensors"
    run(
        capfd, "evaluate", pair / "manifest.csv", "--method", "identity", "--method", f"net={small}",
        "--initial-sre-mm", "0-12",
        "--count", 10, "--initialisations", 3, "--perturbation-mm", 3, "-o", table,
    )  # fmt: skip
    rows = [row for row in csv.DictReader(table.read_text().splitlines()) if row["method"] == "net"]
    assert all(float(row["dispersion_mm"]) > 0 for row in rows)
    assert all(row["expected_sre_mm"] == row["trusted"] == "" for row in rows)
    calibrate = [
        "calibrate",
        table,
        "--method",
        "net",
        "--model",
        small,
        "--initialisations",
        3,
        "--perturbation-mm",
        3,
    ]
    out, _ = run(capfd, *calibrate, "--threshold-mm", "6.5", "-o", made)
    assert "rank correlation with the true SRE" in out
    model = load_model(made)
    assert (model.run.initialisations, model.run.perturbation_mm) == (3, 3.0)
    assert model.calibration is not None
    assert model.calibration.threshold_mm == 6.5
    before, after = (load_stage(path).network.state_dict() for path in (small, made))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "expected SRE" in run(capfd, *to_register(pair, tmp_path, made))[0]
    assert "exists already" in refused(capfd, *calibrate, "-o", made)
    assert "belong together" in refused(capfd, "calibrate", table, "--method", "net", "-o", tmp_path / "b.safetensors")
    assert "several methods" in refused(capfd, "calibrate", table)


def test_an_expected_error_over_the_threshold_is_printed_and_shown(
    pair: Path, small: Path, tmp_path: Path, capfd
) -> None:
    strict = Model(load_stage(small), RunSettings(initialisations=3), Calibration(5.0, 0.5, 0.0, 4.0))
    save_model(strict, tmp_path / "strict.safetensors")
    words = [*to_register(pair, tmp_path, tmp_path / "strict.safetensors"), "--overwrite"]
    out, err = run(capfd, *words, "--report", tmp_path / "r.html")
    expected = next(line for line in out.splitlines() if line.startswith("expected SRE"))
    assert expected.endswith("mm (do not trust this)")
    assert float(expected.split()[2]) > 5
    assert "crossalign: warning: do not trust this result" in err
    page = (tmp_path / "r.html").read_text()
    assert "Expected SRE</dt>" in page
    assert "mm: do not trust this</dd>" in page
    out, err = run(capfd, *words, "--initialisations", "1")
    assert "expected SRE" not in out
    assert "needs several initialisations" in err
    mild = Model(load_stage(small), RunSettings(initialisations=3), Calibration(0.0, 0.5, 0.0, 40.0))
    save_model(mild, tmp_path / "mild.safetensors")
    out, err = run(capfd, *to_register(pair, tmp_path, tmp_path / "mild.safetensors"), "--overwrite")
    assert "expected SRE" in out
    assert "trust" not in out + err


def test_settings_of_networks_are_for_networks(pair: Path, tmp_path: Path, capfd) -> None:
    words = ["register", pair / "mr.nii.gz", pair / "us.nii.gz", "--initial", "center"]
    words += ["--output-transform", tmp_path / "a.tfm"]
    assert "--initialisations: is for networks, which 'identity' is not" in refused(
        capfd, *words, "--method", "identity", "--initialisations", "4"
    )
    assert not (tmp_path / "a.tfm").exists()


def test_stages_are_combined_into_one_model(small: Path, tmp_path: Path, capfd) -> None:
    cascade, ensemble = tmp_path / "cascade.safetensors", tmp_path / "ensemble.safetensors"
    out, _ = run(capfd, "combine", small, small, "-o", cascade, "--initialisations", 4)
    assert f"wrote    {cascade}" in out
    run(capfd, "combine", small, small, "-o", ensemble, "--ensemble")
    assert load_model(cascade).run == RunSettings(initialisations=4)
    assert len(load_model(cascade).stages) == len(load_model(ensemble).stages) == 2
    assert isinstance(load_model(ensemble).arrangement, Ensemble)
    assert "exists already" in refused(capfd, "combine", small, "-o", cascade)
    assert "is an input of this run" in refused(capfd, "combine", small, "-o", small, "--overwrite")


def test_an_error_head_is_trained_anew_and_nothing_else(tmp_path: Path, capfd) -> None:
    path = tmp_path / "headed.safetensors"
    words = ["train-error-head", f"{ONE}:1", "--simulate", 2, "--steps", 2, "--batch", 2, "--device", "cpu", "-o", path]
    assert "steps    2\n" in run(capfd, *words)[0]
    before, after = (load_stage(one).network.state_dict() for one in (f"{ONE}:1", path))
    changed = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert changed
    assert all(name.startswith("error_head") for name in changed)
    assert "exists already" in refused(capfd, *words)


def test_shipped_weights_are_fine_tuned_by_name_on_scans_of_any_spacing(pair: Path, tmp_path: Path, capfd) -> None:
    scans = "mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm"  # at 2 mm; the weights were trained at 1.5 mm
    manifest = pair / "tuning.csv"
    manifest.write_text(
        "case,split,fixed,moving,fixed_mask,reference\n"
        + "".join(f"{split}{n},{split},{scans}\n" for split in ("train", "val") for n in "12")
    )
    folder = tmp_path / "run"
    words = [
        "train",
        manifest,
        "-o",
        folder,
        "--from",
        ONE,
        "--batch",
        2,
        "--val-initialisations",
        1,
        "--device",
        "cpu",
    ]
    run(capfd, *words, "--steps", 1, "--val-every", 1, "--rate", "1e-9")
    initial, tuned = load_stage(f"{ONE}:1"), load_stage(folder / "best.safetensors")
    assert tuned.settings == initial.settings
    assert json.loads((folder / "settings.json").read_text())["stage"]["network"] == initial.settings.network
    for name, value in initial.network.named_parameters():
        torch.testing.assert_close(tuned.network.get_parameter(name), value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "nobody"], "nobody: no such weight file, and the shipped models are"),
        (["--from", ONE, "--stage.network", "attention-reg"], "leave out --stage.network and --stage.crop-shape"),
        (["--from", f"{NAME}:7"], "does not name one of"),
    ],
)
def test_beginnings_that_are_refused(words: list[str], message: str, tmp_path: Path, capfd) -> None:
    assert message in refused(capfd, "train", "-o", tmp_path / "run", "--simulate", "4", *words)
    assert not (tmp_path / "run").exists()
