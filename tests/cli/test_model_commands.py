"""Shipped weights on the command line: list, cards, fine-tuning, and what they expect of themselves."""

import csv
import json
from pathlib import Path

import pytest
import torch
from crossalign.cli.running import parse_run
from crossalign.models.cascade_settings import (
    Calibration,
    CascadeSettings,
    GridSearch,
    store_settings,
    stored_settings,
)
from safetensors import safe_open

from crossalign.cli.main import main
from crossalign.errors import InputError
from crossalign.models import Stage, StageSettings, load_stage, save_stage
from crossalign.models.pretrained import model_card, recorded_sums, shipped_fusion_names, shipped_names, weight_paths
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


def test_models_lists_methods_and_weights_of_both_kinds(capfd) -> None:
    out, _ = run(capfd, "models")
    rows = {line.split()[0]: line for line in out.splitlines()[1:] if line}
    assert {"identity", "mi", *shipped_names(), *shipped_fusion_names()} <= set(rows)
    for name in (*shipped_names(), *shipped_fusion_names()):
        assert all(recorded_sums()[path.name][:12] in rows[name] for path in weight_paths(name))
        assert "Apache-2.0" in rows[name]
    assert rows[NAME].split()[1:3] == ["*", "registration"]


@pytest.mark.parametrize("name", [*shipped_names(), *shipped_fusion_names()])
def test_models_prints_a_card_and_the_files(capfd, name: str) -> None:
    out, _ = run(capfd, "models", name)
    assert out.startswith(model_card(name).rstrip())
    for path in weight_paths(name):
        assert f"SHA-256 {recorded_sums()[path.name]}" in out


def test_models_of_an_unknown_name(capfd) -> None:
    assert "no shipped weights are called 'nobody'" in refused(capfd, "models", "nobody")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained stage: its answers scatter as its starts do."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    torch.manual_seed(0)
    settings = StageSettings("feature-reg", (16, 16, 16), 5.0, 2.0)
    save_stage(Stage(build_network(settings.network, settings.crop_shape).eval(), settings, {}), path)
    return path


def to_register(pair: Path, folder: Path, method: Path) -> list[object]:
    words: list[object] = ["register", pair / "mr.nii.gz", pair / "us.nii.gz", "--fixed-mask", pair / "gland.nii.gz"]
    return [*words, "--initial", "mask-center", "--method", method, "--output-transform", folder / "a.tfm"]


def test_a_table_is_calibrated_into_weights(pair: Path, small: Path, tmp_path: Path, capfd) -> None:
    table, made = tmp_path / "t.csv", tmp_path / "calibrated.safetensors"
    run(
        capfd, "evaluate", pair / "manifest.csv", "--method", "identity", "--method", f"net={small}", "--initial-sre-mm", "0-12",
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
    kept = stored_settings([load_stage(made)])
    assert (kept.starts, kept.spread_mm) == (3, 3.0)
    assert kept.calibration is not None
    assert kept.calibration.threshold_mm == 6.5
    with safe_open(small, "pt") as before, safe_open(made, "pt") as after:
        assert all(torch.equal(before.get_tensor(name), after.get_tensor(name)) for name in before.keys())  # noqa: SIM118
    assert "expected SRE" in run(capfd, *to_register(pair, tmp_path, made))[0]
    assert "exists already" in refused(capfd, *calibrate, "-o", made)
    assert "belong together" in refused(capfd, "calibrate", table, "--method", "net", "-o", tmp_path / "b.safetensors")
    assert "several methods" in refused(capfd, "calibrate", table)


def test_an_expected_error_over_the_threshold_is_printed_and_shown(
    pair: Path, small: Path, tmp_path: Path, capfd
) -> None:
    strict = CascadeSettings(starts=3, calibration=Calibration(5.0, 0.5, 0.0, 4.0))
    store_settings(load_stage(small), strict, 1, tmp_path / "strict.safetensors")
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
    assert "needs several starts (--starts 2 or more)" in err
    mild = CascadeSettings(starts=3, calibration=Calibration(0.0, 0.5, 0.0, 40.0))
    store_settings(load_stage(small), mild, 1, tmp_path / "mild.safetensors")
    out, err = run(capfd, *to_register(pair, tmp_path, tmp_path / "mild.safetensors"), "--overwrite")
    assert "expected SRE" in out
    assert "trust" not in out + err


def test_only_networks_are_run_from_several_starts(pair: Path, tmp_path: Path, capfd) -> None:
    words = ["register", pair / "mr.nii.gz", pair / "us.nii.gz", "--initial", "center"]
    words += ["--output-transform", tmp_path / "a.tfm"]
    assert "'identity' is no network" in refused(capfd, *words, "--method", "identity", "--initialisations", "4")
    assert not (tmp_path / "a.tfm").exists()


def test_how_networks_are_run_is_read_from_text() -> None:
    plain = CascadeSettings()
    found = parse_run("starts=8, max_passes=5,spread_mm=2.5,search=on", plain)
    assert found == CascadeSettings(starts=8, spread_mm=2.5, max_passes=5, search=GridSearch())
    assert parse_run("search=off", found).search is None
    assert parse_run("", plain) == plain
    assert parse_run("together=on", plain).together
    assert parse_run("later_share=0.5,later_share_z=0", plain) == CascadeSettings(later_share=0.5, later_share_z=0.0)
    assert parse_run("header_turn=270", plain).header_turns_deg == (270,)
    assert parse_run("header_turn=auto", plain).header_turns_deg == (0, 90, 180, 270)
    with pytest.raises(InputError, match="header_turn is one of auto, 0, 90, 180, 270, got '45'"):
        parse_run("header_turn=45", plain)
    for text in ("starts", "starts=many", "starts=2.5", "luck=3", "search=maybe", "=", "starts==3"):
        with pytest.raises(InputError, match="cannot read"):
            parse_run(text, plain)
    with pytest.raises(InputError, match="must be 1 or more"):
        parse_run("starts=0", plain)


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
    begun, tuned = load_stage(weight_paths(ONE)[0]), load_stage(folder / "best.safetensors")
    assert tuned.settings == begun.settings
    assert json.loads((folder / "settings.json").read_text())["stage"]["network"] == begun.settings.network
    for name, value in begun.network.named_parameters():
        torch.testing.assert_close(tuned.model.get_parameter(name), value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "nobody"], "nobody: no such weight file, and shipped weights are"),
        (["--from", ONE, "--stage.network", "attention-reg"], "leave out --stage.network and --stage.crop-shape"),
        (["--from", f"{NAME}:7"], "does not name one of"),
    ],
)
def test_beginnings_that_are_refused(words: list[str], message: str, tmp_path: Path, capfd) -> None:
    assert message in refused(capfd, "train", "-o", tmp_path / "run", "--simulate", "4", *words)
    assert not (tmp_path / "run").exists()
