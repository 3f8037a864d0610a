"""What the commands do when all is well; SimpleITK is the judge."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from crossalign.cli.main import main
from crossalign.data import load_case, read_manifest
from crossalign.evaluation import InitialisationRange, draw_initialisations
from crossalign.geometry import Grid, Rigid
from crossalign.images import (
    Image,
    empty_value,
    read_grid,
    read_image,
    read_label_map,
    read_transform,
    surface_points,
    write_image,
    write_transform,
)
from crossalign.models import Stage, StageSettings, save_stage
from crossalign.networks import build_network


def run(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    status = main([str(word) for word in words])
    out, err = capfd.readouterr()
    assert status == 0, err
    return out


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def sre_with_itk(found: Path, reference: Path, points: torch.Tensor) -> float:
    a, b = sitk.ReadTransform(str(found)), sitk.ReadTransform(str(reference))
    ends = [(a.TransformPoint(p), b.TransformPoint(p)) for p in points.tolist()]
    return float(np.mean([np.linalg.norm(np.subtract(p, q)) for p, q in ends]))


def printed_sre(out: str) -> tuple[float, float]:
    words = next(line for line in out.splitlines() if line.startswith("SRE")).split()
    return float(words[1]), float(words[4])


def test_register_writes_what_it_prints(pair: Path, tmp_path: Path, capfd) -> None:
    out = run(
        capfd, "register", pair / "mr.nii.gz", pair / "us.nii.gz", "--initial", pair / "start.tfm",
        "--fixed-mask", pair / "gland.nii.gz", "--reference", pair / "reference.tfm", "--method", "mi",
        "--output-transform", tmp_path / "out.tfm", "--moved", tmp_path / "moved.nii.gz",
        "--report", tmp_path / "r.html",
    )  # fmt: skip
    before, after = printed_sre(out)
    points = surface_points(read_label_map(pair / "gland.nii.gz"))
    assert sre_with_itk(pair / "start.tfm", pair / "reference.tfm", points) == pytest.approx(before, abs=0.01)
    assert sre_with_itk(tmp_path / "out.tfm", pair / "reference.tfm", points) == pytest.approx(after, abs=0.01)
    assert after < 1 < before
    for name, unit in (("centre", "mm"), ("angle", "degrees")):
        words = next(line for line in out.splitlines() if line.startswith(name)).split()
        assert words[2] == words[5] == unit
        assert float(words[4]) < float(words[1])
    assert "<html" in (tmp_path / "r.html").read_text()
    moving, frame = sitk.ReadImage(str(pair / "us.nii.gz")), sitk.ReadImage(str(pair / "mr.nii.gz"))
    transform = sitk.ReadTransform(str(tmp_path / "out.tfm"))
    nothing = empty_value(read_image(pair / "us.nii.gz").voxels)
    assert f"moved.nii.gz (the moving image on the fixed grid; outside it is {nothing:g})" in out
    expected = sitk.GetArrayFromImage(sitk.Resample(moving, frame, transform, sitk.sitkLinear, nothing))
    assert np.allclose(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "moved.nii.gz"))), expected, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved.nii.gz", "out.tfm", "r.html"]


@pytest.mark.parametrize("start", ["center", "mask-center"])
def test_register_starts_from_centres(pair: Path, tmp_path: Path, capfd, start: str) -> None:
    run(
        capfd, "register", pair / "mr.nii.gz", pair / "us.nii.gz", "--initial", start, "--method", "identity",
        "--fixed-mask", pair / "gland.nii.gz", "--output-transform", tmp_path / "out.tfm",
    )  # fmt: skip
    middle = read_transform(tmp_path / "out.tfm").apply(read_grid(pair / "mr.nii.gz").center_mm()[None])[0]
    assert torch.allclose(middle, read_grid(pair / "us.nii.gz").center_mm(), atol=1.5)


def test_overwrite_replaces_and_warnings_go_to_standard_error(pair: Path, tmp_path: Path, capfd) -> None:
    (tmp_path / "out.tfm").write_text("old")
    far = read_transform(pair / "reference.tfm")
    write_transform(Rigid(far.rotation, far.translation_mm + torch.tensor([44.0, 0, 0])), tmp_path / "far.tfm")
    words = ["register", pair / "mr.nii.gz", pair / "us.nii.gz", "--initial", tmp_path / "far.tfm"]
    words += ["--method", "identity", "--output-transform", tmp_path / "out.tfm", "--overwrite"]
    status = main([str(word) for word in words])
    out, err = capfd.readouterr()
    assert status == 0
    assert "crossalign: warning: the initial transform brings only" in err
    assert "warning" not in out
    assert sitk.ReadTransform(str(tmp_path / "out.tfm")).GetName() == "AffineTransform"


def test_apply_maps_points_there_and_back(pair: Path, tmp_path: Path, capfd) -> None:
    (tmp_path / "p.csv").write_text("name,x,y,z\napex,1,2,3\nbase,-4,5,6\n")
    out = run(capfd, "apply", pair / "reference.tfm", tmp_path / "p.csv", "-o", tmp_path / "q.csv")
    assert "2 points mapped fixed-to-moving" in out
    rows = read_rows(tmp_path / "q.csv")
    assert [(row["name"], row["frame"]) for row in rows] == [("apex", "moving"), ("base", "moving")]
    expected = sitk.ReadTransform(str(pair / "reference.tfm")).TransformPoint((1, 2, 3))
    assert np.allclose([float(rows[0][axis]) for axis in "xyz"], expected, atol=1e-4)
    run(
        capfd, "apply", pair / "reference.tfm", tmp_path / "q.csv", "-o", tmp_path / "r.csv",
        "--direction", "moving-to-fixed",
    )  # fmt: skip
    assert (tmp_path / "r.csv").read_text().splitlines()[2] == "base,-4.0000,5.0000,6.0000,fixed"


def test_apply_agrees_with_simpleitk_on_a_label_map(pair: Path, tmp_path: Path, capfd) -> None:
    run(
        capfd, "apply", pair / "start.tfm", pair / "us_gland.nii.gz", "--reference", pair / "mr.nii.gz",
        "-o", tmp_path / "gland.nii.gz", "--label",
    )  # fmt: skip
    frame, transform = sitk.ReadImage(str(pair / "mr.nii.gz")), sitk.ReadTransform(str(pair / "start.tfm"))
    moving = sitk.ReadImage(str(pair / "us_gland.nii.gz"))
    expected = sitk.Resample(moving, frame, transform, sitk.sitkNearestNeighbor)
    assert np.array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "gland.nii.gz"))), sitk.GetArrayFromImage(expected)
    )


def test_evaluate_writes_a_table(pair: Path, tmp_path: Path, capfd) -> None:
    out = run(
        capfd, "evaluate", pair / "manifest.csv", "--method", "identity", "--method", "mi",
        "--initial-sre-mm", 4, "--initial-sre-mm", "0-6", "--count", 2,
        "-o", tmp_path / "table.csv",
    )  # fmt: skip
    rows = read_rows(tmp_path / "table.csv")
    assert len(rows) == 8
    assert {row["case"] for row in rows} == {"a"}
    assert "identity" in out
    assert str(tmp_path / "table.csv") in out


def test_demo_keeps_what_is_there_and_numbers_its_folders(tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crossalign-demo").mkdir()
    out = run(capfd, "demo")
    before, after = printed_sre(out)
    assert after < before
    assert "moving LPS (recognised)" in out
    report = Path(out.splitlines()[-1].split(maxsplit=1)[1])
    assert report == tmp_path / "crossalign-demo-2" / "report.html"
    assert report.is_file()
    assert list((tmp_path / "crossalign-demo").iterdir()) == []


def test_a_demo_that_fails_leaves_no_folder(tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--device", "abacus"]) == 2
    assert main(["demo", "--output", "missing/demo"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_models_version_and_help(capfd) -> None:
    assert run(capfd, "models").splitlines()[1].startswith("identity")
    assert run(capfd, "--version").startswith("crossalign ")
    for words in ([], ["--help"], ["register", "--help"]):
        assert "Usage: crossalign" in run(capfd, *words)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from crossalign.cli.main import main; main(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'SimpleITK', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_real_process_ends_with_the_status_and_the_line(tmp_path: Path) -> None:
    words = ["register", "no.nii", "no.nii", "--initial", "center", "--output-transform", "out.tfm"]
    done = subprocess.run(
        [sys.executable, "-m", "crossalign", *words], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "crossalign: error: no.nii: no such file\n"


def test_two_network_stages_on_a_96_cube_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    code = """
import sys, torch
from crossalign.cli.main import main
torch.set_num_threads(2)
status = main(["register", "mr.nii.gz", "us.nii.gz", "--initial", "center", "--output-transform", "out.tfm",
               "--method", "s.safetensors+s.safetensors", "--moved", "moved.nii.gz"])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss: also the parent's
print("MiB", int(peak.split()[1]) // 1024)
sys.exit(status)
"""
    make_cube_pair(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 1024


def make_cube_pair(folder: Path) -> None:
    grid = Grid.centered((0.0, 0.0, 0.0), (96, 96, 96), (1.0, 1.0, 1.0))
    for name in ("mr", "us"):
        write_image(Image(torch.rand(96, 96, 96), grid), folder / f"{name}.nii.gz")
    settings = StageSettings()
    model = build_network(settings.network, settings.crop_shape).eval()
    save_stage(Stage(model, settings, {}), folder / "s.safetensors")


@pytest.mark.parametrize("case", ["obs000"])
def test_a_real_pair_from_end_to_end(shared_data: Path, tmp_path: Path, capfd, case: str) -> None:
    real = shared_data / "mrus" / case
    (tmp_path / "manifest.csv").write_text(
        "case,split,fixed,moving,fixed_mask,reference\n"
        f"{case},train,{real / 'mr.nii.gz'},{real / 'us.nii.gz'},{real / 'mr_gland.nii.gz'},{real / 'reference.tfm'}\n"
    )
    loaded = load_case(read_manifest(tmp_path / "manifest.csv")[0])
    write_transform(draw_initialisations(loaded, InitialisationRange(8.0, 8.0), 1, 0)[0], tmp_path / "start.tfm")
    out = run(
        capfd, "register", real / "mr.nii.gz", real / "us.nii.gz", "--initial", tmp_path / "start.tfm",
        "--fixed-mask", real / "mr_gland.nii.gz", "--reference", real / "reference.tfm", "--method", "mi",
        "--output-transform", tmp_path / "out.tfm", "--moved", tmp_path / "moved.nii.gz",
        "--report", tmp_path / "r.html",
    )  # fmt: skip
    before, after = printed_sre(out)
    assert before == pytest.approx(8.0, abs=0.01)
    itk = sre_with_itk(tmp_path / "out.tfm", real / "reference.tfm", loaded.surface_mm)
    assert itk == pytest.approx(after, abs=0.01)
    assert read_image(tmp_path / "moved.nii.gz").grid.agrees_with(loaded.fixed.grid)

    run(
        capfd, "apply", tmp_path / "out.tfm", real / "us_gland.nii.gz", "--reference", real / "mr.nii.gz",
        "--label", "-o", tmp_path / "gland.nii.gz",
    )  # fmt: skip
    transform = sitk.ReadTransform(str(tmp_path / "out.tfm"))
    frame, moving = sitk.ReadImage(str(real / "mr.nii.gz")), sitk.ReadImage(str(real / "us_gland.nii.gz"))
    expected = sitk.GetArrayFromImage(sitk.Resample(moving, frame, transform, sitk.sitkNearestNeighbor))
    assert (read_label_map(tmp_path / "gland.nii.gz").labels.numpy() != expected).mean() < 1e-4  # ties at half a voxel

    landmarks = read_rows(real / "landmarks.csv")
    lines = [f"{row['name']},{row['mr_x']},{row['mr_y']},{row['mr_z']}" for row in landmarks]
    (tmp_path / "marks.csv").write_text("name,x,y,z\n" + "\n".join(lines) + "\n")
    run(capfd, "apply", tmp_path / "out.tfm", tmp_path / "marks.csv", "-o", tmp_path / "moved.csv")
    mapped = [[float(row[a]) for a in "xyz"] for row in read_rows(tmp_path / "moved.csv")]
    itk_mapped = [transform.TransformPoint([float(row[f"mr_{a}"]) for a in "xyz"]) for row in landmarks]
    assert np.allclose(mapped, itk_mapped, atol=1e-3)
