"""`crossalign explain`: what it writes, and what it refuses."""

import csv
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from crossalign.cli.main import main
from crossalign.images import LabelMap, read_grid, read_label_map, write_label_map
from crossalign.models import Stage, StageSettings, save_stage
from crossalign.networks import build_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained stages: attention, correspondence, feature, label (.safetensors)."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        named: tuple[tuple[str, str, Literal["image", "label"]], ...] = (
            ("attention", "attention-reg", "image"),
            ("correspondence", "correspondence", "image"),
            ("feature", "feature-reg", "image"),
            ("label", "attention-reg", "label"),
        )
        for name, model, seen in named:
            torch.manual_seed(1)
            network = build_network(model, (8, 8, 8), 5.0).eval()
            settings = StageSettings(model, (8, 8, 8), 5.0, 3.0, seen)
            save_stage(Stage(network, settings, {}), folder / f"{name}.safetensors")
    return folder


def words(pair: Path, *more: object) -> list[str]:
    given = ["explain", pair / "mr.nii.gz", pair / "us.nii.gz", "--initial", pair / "start.tfm", "--steps", 2]
    return [str(word) for word in (*given, *more)]


def middle(pair: Path) -> str:
    return ",".join(f"{value:.2f}" for value in read_grid(pair / "mr.nii.gz").center_mm().tolist())


def refused(capfd: pytest.CaptureFixture[str], given: list[str], folder: Path) -> str:
    """The message of a call that must end with status 2 and leave the folder as it was."""
    before = sorted(path.name for path in folder.parent.rglob("*"))
    status = main(given)
    out, err = capfd.readouterr()
    assert status == 2, err
    assert out == ""
    assert sorted(path.name for path in folder.parent.rglob("*")) == before
    return err


def test_a_cascade_of_both_kinds_writes_everything(pair: Path, weights: Path, tmp_path: Path, capfd) -> None:
    method = f"{weights / 'attention.safetensors'}+{weights / 'correspondence.safetensors'}"
    (tmp_path / "marks.csv").write_text(
        "name,mr_x,mr_y,mr_z,us_x,us_y,us_z\napex," + middle(pair) + ",0,0,0\nfar,900,0,0,0,0,0\n"
    )
    given = words(
        pair, "--method", method, "--fixed-mask", pair / "gland.nii.gz", f"--point={middle(pair)}",
        "--landmarks", tmp_path / "marks.csv", "--point-name", "apex", "--figure", "-o", tmp_path / "out",
    )  # fmt: skip
    assert main(given) == 0
    out, _ = capfd.readouterr()
    assert "p1 matches (" in out
    assert "apex attends to (" in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "figure.png", "parameters.csv", "attention.csv", "points.csv"} <= names
    maps = {f"stage{n}-{name}.nii.gz" for n in (1, 2) for name in ("tx", "ty", "tz", "rx", "ry", "rz", "point-p1")}
    assert maps <= names
    assert {"stage1-gradcam-fixed.nii.gz", "stage2-local-layer2-moving-on-moving.nii.gz"} <= names
    frame = {"": sitk.ReadImage(str(pair / "mr.nii.gz")), "-on-moving": sitk.ReadImage(str(pair / "us.nii.gz"))}
    for name in names:
        if not name.endswith(".nii.gz"):
            continue
        image = sitk.ReadImage(str(tmp_path / "out" / name))
        like = frame["-on-moving" if name.endswith("-on-moving.nii.gz") else ""]
        assert image.GetPixelID() == sitk.sitkFloat32
        assert image.GetSize() == like.GetSize()
        assert np.allclose(image.GetOrigin(), like.GetOrigin(), atol=1e-4)
        assert np.allclose(image.GetDirection(), like.GetDirection(), atol=1e-6)
        values = sitk.GetArrayViewFromImage(image)
        assert 0 <= values.min() <= values.max() <= 1
    rows = list(csv.DictReader((tmp_path / "out" / "points.csv").read_text().splitlines()))
    assert [(row["stage"], row["name"]) for row in rows] == [("1", "p1"), ("1", "apex"), ("2", "p1"), ("2", "apex")]
    assert rows[0]["matched_x_mm"] == ""
    assert abs(float(rows[2]["matched_x_mm"]) - float(rows[2]["initial_x_mm"])) < 60
    start = sitk.ReadTransform(str(pair / "start.tfm"))
    place = start.TransformPoint([float(value) for value in middle(pair).split(",")])
    assert np.allclose([float(rows[0][f"initial_{axis}_mm"]) for axis in "xyz"], place, atol=1e-2)


def test_a_network_without_attention_is_explained_as_far_as_it_goes(pair, weights, tmp_path, capfd) -> None:
    given = words(pair, "--method", weights / "feature.safetensors", "-o", tmp_path / "out")
    assert main(given) == 0
    _, err = capfd.readouterr()
    assert "warning: stage 1 (feature-reg) has no attention: only what each parameter depends on" in err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "report.html",
        "parameters.csv",
        *(f"stage1-{p}.nii.gz" for p in ["tx", "ty", "tz", "rx", "ry", "rz"]),
    }
    rows = list(csv.DictReader((tmp_path / "out" / "parameters.csv").read_text().splitlines()))
    assert rows[0]["inside_mask_fraction"] == ""


def test_what_exists_is_kept_without_overwrite(pair: Path, weights: Path, tmp_path: Path, capfd) -> None:
    given = words(pair, "--method", weights / "feature.safetensors", "-o", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("mine")
    (tmp_path / "out" / "notes.txt").write_text("mine too")
    assert "report.html: exists already" in refused(capfd, given, tmp_path / "out")
    assert (tmp_path / "out" / "report.html").read_text() == "mine"
    assert main([*given, "--overwrite"]) == 0
    assert "<html" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine too"


def test_a_volume_that_exists_stops_all_of_it(pair: Path, weights: Path, tmp_path: Path, capfd) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stage1-rz.nii.gz").write_text("mine")
    given = words(pair, "--method", weights / "feature.safetensors", "-o", tmp_path / "out")
    assert "stage1-rz.nii.gz: exists already" in refused(capfd, given, tmp_path / "out")
    assert (tmp_path / "out" / "stage1-rz.nii.gz").read_text() == "mine"


BAD = {
    "no network": (("--method", "mi"), "'mi' has no network whose attention could be explained"),
    "no mask for label mode": (("--method", "label"), "--fixed-mask"),
    "outside": (("--method", "attention", "--point=500,0,0"), "'p1' at (500.0, 0.0, 0.0) mm lies outside the crop"),
    "no attention": (("--method", "feature", "--point=1,2,3"), "no stage of 'feature' has attention"),
    "not a point": (("--method", "attention", "--point=1,2"), "expected three numbers X,Y,Z in mm"),
    "not numbers": (("--method", "attention", "--point=a,b,c"), "expected three numbers X,Y,Z in mm"),
    "not finite": (("--method", "attention", "--point=nan,1,2"), "expected three numbers X,Y,Z in mm"),
    "no landmarks": (("--method", "attention", "--point-name", "apex"), "--point-name needs --landmarks"),
    "no name": (("--method", "attention", "--landmarks", "marks.csv"), "--landmarks needs --point-name"),
    "unknown name": (
        ("--method", "attention", "--landmarks", "marks.csv", "--point-name", "base"),
        "no landmark is called 'base': the file holds apex",
    ),
    "no file": (("--method", "attention", "--landmarks", "no.csv", "--point-name", "apex"), "no such file"),
    "moving points": (
        ("--method", "attention", "--landmarks", "moving.csv", "--point-name", "apex"),
        "holds points of the moving image",
    ),
    "no steps": (("--method", "attention", "--steps", "0"), "steps"),
    "missing weights": (("--method", "none.safetensors"), "no such weight file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, pair: Path, weights: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "marks.csv").write_text("name,x,y,z\napex,1,2,3\n")
    (tmp_path / "moving.csv").write_text("name,x,y,z,frame\napex,1,2,3,moving\n")
    more, message = BAD[case]
    names = {path.stem: str(path) for path in weights.iterdir()}
    given = words(pair, *(names.get(word, word) for word in more), "-o", tmp_path / "out")
    assert message in refused(capfd, given, tmp_path / "out")


def test_a_file_in_the_folders_place(pair: Path, weights: Path, tmp_path: Path, capfd) -> None:
    (tmp_path / "out").write_text("mine")
    given = words(pair, "--method", weights / "feature.safetensors", "-o", tmp_path / "out")
    assert "is a file, expected a folder" in refused(capfd, given, tmp_path / "out")


def test_the_name_of_a_page_in_the_folders_place(pair: Path, weights: Path, tmp_path: Path, capfd) -> None:
    given = words(pair, "--method", weights / "feature.safetensors", "-o", tmp_path / "out.html")
    assert "in which the page is report.html: leave out .html" in refused(capfd, given, tmp_path / "out.html")
    given = words(pair, "--method", weights / "feature.safetensors", "-o", tmp_path / "no" / "out")
    assert "is not a folder that exists" in refused(capfd, given, tmp_path / "no")


def test_a_start_and_a_structure_are_chosen_as_in_register(pair: Path, weights: Path, tmp_path: Path, capfd) -> None:
    gland = read_label_map(pair / "gland.nii.gz")
    upper = torch.where(gland.labels != 0, 1 + (gland.grid.points_mm()[..., 2] > gland.centroid_mm()[2]).long(), 0)
    write_label_map(LabelMap(upper, gland.grid), tmp_path / "zones.nii.gz")
    method = ["--method", weights / "feature.safetensors", "--steps", 1, "--fixed-mask", tmp_path / "zones.nii.gz"]
    given = ["explain", pair / "mr.nii.gz", pair / "us.nii.gz", *method, "-o", tmp_path / "out"]
    assert "1 (" in refused(capfd, [str(word) for word in given], tmp_path / "out")
    assert main([str(word) for word in (*given, "--mask-label", 2)]) == 0
    assert "initial  mask-center (the headers put the scans apart)" in capfd.readouterr().out
