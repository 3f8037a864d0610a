"""`crossalign adapt`: from a folder of pairs to a model, a page and a curve."""

from pathlib import Path

import pytest
from tests.training.site import write_model, write_site

from crossalign.cli.main import main

SHORT = ["--steps", "2", "--val-every", "1", "--batch", "2", "--synthesised-pairs", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_site(tmp_path_factory.mktemp("site"), 4)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "toy.safetensors", offset_mm=3.0)


def test_a_site_s_pairs_become_a_model_a_page_and_a_curve(site: Path, start: Path, tmp_path: Path, capfd) -> None:
    adapt = ["adapt", str(site), "--from", str(start), "-o", str(tmp_path / "run"), "--name", "mine", *SHORT]
    assert main([*adapt, "--rate", "0.5", "--ema-decay", "0", "--val-initialisations", "2"]) == 0
    out, err = capfd.readouterr()
    assert "references: 4 given" in out
    assert "2 to train on, 2 to measure on" in out
    assert "reference: p0: given" in err
    folder = tmp_path / "run"
    assert (folder / "learning-curve.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert "Learning curve" in page
    assert "dapted: " in page
    assert not any(word in page for word in (str(tmp_path), "nii.gz", "http://", "https://"))
    case = site / "p0"
    register = ["register", str(case / "mr.nii.gz"), str(case / "us.nii.gz"), "--initial", str(case / "reference.tfm")]
    register += ["--fixed-mask", str(case / "mr_gland.nii.gz"), "--output-transform", str(tmp_path / "out.tfm")]
    assert main([*register, "--method", str(folder / "mine.safetensors")]) == 0
    evaluate = ["evaluate", str(folder / "manifest.csv"), "--split", "val", "--method", "identity", "--count", "1"]
    assert main([*evaluate, "--initial-sre-mm", "5", "-o", str(tmp_path / "table.csv")]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps must be 1 or more"),
        (["--val-fraction", "0"], "--val-fraction must be over 0"),
        (["--stages", "some"], "must be one of all, initial"),
        (["--orientation-correction", "45"], "must be one of 0, 90, 180, 270"),
        (["--from", "nothing"], "no such weight file"),
        (["--name", "a/b"], "cannot be a file's"),
        (["--minutes", "-1"], "--minutes must be 0 or more"),
    ],
)
def test_bad_options_are_refused(words: list[str], message: str, site: Path, tmp_path: Path, capfd) -> None:
    assert main(["adapt", str(site), "-o", str(tmp_path / "run"), "--device", "cpu", *words]) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_missing_or_empty_site_is_named(tmp_path: Path, capfd) -> None:
    for source, message in ((tmp_path / "none", "no such"), (tmp_path, "holds no pair of scans")):
        assert main(["adapt", str(source), "-o", str(tmp_path / "run")]) == 2
        assert message in capfd.readouterr().err
