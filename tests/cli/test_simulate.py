"""`crossalign simulate`: files that load as a manifest, the same from the same seed, and nothing half-written."""

from pathlib import Path

import pytest
import torch

from crossalign.cli.main import main
from crossalign.data import load_case, read_manifest


def test_pairs_load_and_are_those_of_the_seed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(["simulate", "2", "-o", str(tmp_path / name), "--seed", "5", "--split", "val"]) == 0
    cases = [read_manifest(tmp_path / name / "manifest.csv", "val") for name in ("one", "two")]
    assert [case.name for case in cases[0]] == ["simulated0000", "simulated0001"]
    one, two = load_case(cases[0][1]), load_case(cases[1][1])
    torch.testing.assert_close(one.moving.voxels, two.moving.voxels)
    assert one.moving_mask is not None
    assert not torch.equal(one.fixed.voxels, load_case(cases[0][0]).fixed.voxels)
    # the reference lays one gland on the other, but for the deformation
    there = one.fixed_to_moving.apply(one.fixed_mask.centroid_mm()[None])[0]
    assert float((there - one.moving_mask.centroid_mm()).norm()) < 6.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("0",), "COUNT must be 1 or more"),
        (("1", "--split", "training"), "--split must be one of train, val, test"),
        (("1", "--seed", "-1"), "--seed must be 0 or more"),
    ],
)
def test_bad_requests(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *arguments, "-o", str(tmp_path / "new")]) == 2
    assert words in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "new").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["simulate", "1", "-o", str(tmp_path)]) == 2
    assert "does not exist" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
