"""A site's orientation as codes: the one correction about z that its scans need, or why there is none."""

from pathlib import Path

import pytest
import torch

from crossalign.cli.main import main
from crossalign.data.scan_pairs import ScanPair
from crossalign.errors import InputError
from crossalign.geometry import Grid, quarter_turn
from crossalign.images import Image, write_image
from crossalign.training.adaptation.orientation import correction_of


def scan(path: Path, header: torch.Tensor) -> Path:
    """Write a scan whose voxel axes run to L, P and S, under a header that says `header` (3, 3)."""
    (a, b, c), (d, e, f), (g, h, i) = header.tolist()
    grid = Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((a, b, c), (d, e, f), (g, h, i)))
    write_image(Image(torch.rand(grid.shape), grid), path)
    return path


def pair(folder: Path, fixed: torch.Tensor, moving: torch.Tensor, name: str = "p0") -> ScanPair:
    first, second = scan(folder / f"{name}-f.nii.gz", fixed), scan(folder / f"{name}-m.nii.gz", moving)
    return ScanPair(name, name, "", first, second, folder / "mask.nii.gz")


@pytest.mark.parametrize("quarters", range(4))
def test_the_correction_is_that_of_the_headers(quarters: int, tmp_path: Path) -> None:
    header = quarter_turn(quarters).mT
    one = pair(tmp_path, header, header)
    assert correction_of([one], "LPS", "LPS") == 90 * quarters
    assert correction_of([one], "header", "header") == 0


def test_orientation_correction_270_is_the_codes_of_the_documentation(tmp_path: Path) -> None:
    """docs/reference/changed-options.md: 270 of both headers is PRS where they say RAS."""
    ras = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    assert correction_of([pair(tmp_path, ras, ras)], "PRS", "PRS") == 270


def test_what_no_single_correction_mends_is_refused(tmp_path: Path) -> None:
    true, wrong, tilted = quarter_turn(0), quarter_turn(1), torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    with pytest.raises(InputError, match="the fixed image of p0 needs 270 degrees, the moving image of p0 needs 0"):
        correction_of([pair(tmp_path, wrong, wrong)], "LPS", "header")
    several = [pair(tmp_path, true, true, "p1"), pair(tmp_path, wrong, wrong, "p2")]
    with pytest.raises(InputError, match="of p1 needs 0 degrees, the fixed image of p2 needs 270"):
        correction_of(several, "LPS", "LPS")
    with pytest.raises(InputError, match="about another axis than z"):
        correction_of([pair(tmp_path, tilted, tilted, "p3")], "LPS", "LPS")
    with pytest.raises(InputError, match="would mirror"):
        correction_of([pair(tmp_path, true, true, "p4")], "RPS", "RPS")


def test_adapt_takes_codes_or_the_correction(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p").mkdir()
    for name in ("mr", "us"):
        scan(tmp_path / "p" / f"{name}.nii.gz", quarter_turn(0))
    scan(tmp_path / "p" / "mr_gland.nii.gz", quarter_turn(0))
    words = ["adapt", str(tmp_path), "-o", str(tmp_path / "run"), "--fixed-orientation", "LPS"]
    assert main([*words, "--orientation-correction", "90"]) == 2
    assert "give one of them" in capfd.readouterr().err
    assert main([*words, "--moving-orientation", "PLI"]) == 2
    assert "the networks" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
