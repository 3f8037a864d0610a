"""`evaluate --moving-orientation`: an image whose header names its axes wrongly begins where it should, untracked."""

import csv
import shutil
from pathlib import Path

import pytest
import torch

from crossalign.cli.main import main
from crossalign.geometry import Grid, Rigid
from crossalign.images import (
    Image,
    LabelMap,
    read_image,
    read_label_map,
    read_transform,
    write_image,
    write_label_map,
    write_transform,
)

WRONG = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))  # of axes that run to L, P and S


@pytest.fixture(scope="module")
def wrong(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair whose ultrasound's header is wrong by a quarter turn, and whose reference follows it."""
    folder = tmp_path_factory.mktemp("wrong")
    for name in ("mr.nii.gz", "gland.nii.gz", "manifest.csv"):
        shutil.copy(pair / name, folder / name)
    scan, gland = read_image(pair / "us.nii.gz"), read_label_map(pair / "us_gland.nii.gz")
    true = scan.grid
    grid = Grid(true.shape, true.spacing_mm, (5.0, -3.0, 2.0), WRONG)
    rotation = torch.tensor(WRONG, dtype=torch.float64) @ torch.tensor(true.direction, dtype=torch.float64).mT
    to_wrong = Rigid(rotation, grid.center_mm() - rotation @ true.center_mm())
    write_image(Image(scan.voxels, grid), folder / "us.nii.gz")
    write_label_map(LabelMap(gland.labels, grid), folder / "us_gland.nii.gz")
    write_transform(to_wrong @ read_transform(pair / "reference.tfm"), folder / "reference.tfm")
    return folder


def initial_sre_mm(folder: Path, table: Path, *more: str) -> list[float]:
    words = ["evaluate", str(folder / "manifest.csv"), "--method", "identity", "-o", str(table), *more]
    assert main([*words, "--initial", "mask-center", "--initial", "masks", "--initial", "center"]) == 0
    return [float(row["initial_sre_mm"]) for row in csv.DictReader(table.read_text().splitlines())]


def test_a_wrong_header_begins_as_the_right_one(pair: Path, wrong: Path, tmp_path: Path) -> None:
    right = initial_sre_mm(pair, tmp_path / "right.csv")
    believed = initial_sre_mm(wrong, tmp_path / "believed.csv")
    corrected = initial_sre_mm(wrong, tmp_path / "corrected.csv", "--moving-orientation", "LPS")
    assert corrected == pytest.approx(right, abs=1e-3)
    assert all(one > other + 2 for one, other in zip(believed, right, strict=True))
    assert "moving orientation" in (tmp_path / "corrected.summary.md").read_text()
    assert "moving orientation" not in (tmp_path / "believed.summary.md").read_text()


def test_it_is_for_initialisations_without_a_tracker(pair: Path, tmp_path: Path, capfd) -> None:
    words = ["evaluate", str(pair / "manifest.csv"), "--method", "identity", "-o", str(tmp_path / "table.csv")]
    assert main([*words, "--initial-sre-mm", "8", "--moving-orientation", "LPS"]) == 2
    assert "--moving-orientation is for --initial masks, mask-center or center" in capfd.readouterr().err
    assert main([*words, "--initial", "center", "--moving-orientation", "LPX"]) == 2
    assert "LPX" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
