"""`crossalign apply`: both directions, none, what lies outside, and what it says of an image that lands nowhere."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from crossalign.cli.main import main
from crossalign.geometry import Grid, Rigid
from crossalign.images import (
    Image,
    LabelMap,
    empty_value,
    read_image,
    read_label_map,
    read_volume,
    write_image,
    write_label_map,
    write_transform,
)

GRID = Grid((10, 12, 14), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
WIDE = Grid((14, 16, 18), (2.0, 2.0, 2.0), (-4.0, -4.0, -4.0))
CONTENT = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(5))


def run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    status = main([str(word) for word in words])
    out, err = capfd.readouterr()
    assert status == 0, err
    return out, err


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with wide.nii.gz, a reference that reaches 4 mm beyond GRID on every side."""
    monkeypatch.chdir(tmp_path)
    write_image(Image(torch.rand(WIDE.shape, generator=torch.Generator().manual_seed(6)), WIDE), "wide.nii.gz")
    return tmp_path


def shift(x: float, path: str = "t.tfm") -> str:
    write_transform(Rigid(torch.eye(3, dtype=torch.float64), torch.tensor([x, 0.0, 0.0], dtype=torch.float64)), path)
    return path


@pytest.mark.parametrize(
    ("source", "reference", "direction", "inverted"),
    [
        ("us", "mr", None, False),
        ("us", "mr", "moving-to-fixed", False),
        ("mr", "us", "fixed-to-moving", True),
    ],
)
def test_each_direction_agrees_with_simpleitk(
    pair: Path, tmp_path: Path, capfd, source: str, reference: str, direction: str | None, inverted: bool
) -> None:
    words = ["--direction", direction] if direction else []
    out, err = run(
        capfd, "apply", pair / "reference.tfm", pair / f"{source}.nii.gz", "--reference", pair / f"{reference}.nii.gz",
        "-o", tmp_path / "o.nrrd", *words,
    )  # fmt: skip
    assert err == ""
    assert f"{source}.nii.gz resampled {direction or 'moving-to-fixed'} on the grid of {reference}.nii.gz" in out
    transform = sitk.ReadTransform(str(pair / "reference.tfm"))
    scan, frame = (sitk.ReadImage(str(pair / f"{name}.nii.gz")) for name in (source, reference))
    nothing = empty_value(read_image(pair / f"{source}.nii.gz").voxels)
    expected = sitk.Resample(scan, frame, transform.GetInverse() if inverted else transform, sitk.sitkLinear, nothing)
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "o.nrrd")))
    assert np.allclose(found, sitk.GetArrayFromImage(expected), atol=1e-4)


def test_a_label_map_of_the_fixed_image_goes_to_the_moving_grid(pair: Path, tmp_path: Path, capfd) -> None:
    run(
        capfd, "apply", pair / "reference.tfm", pair / "gland.nii.gz", "--reference", pair / "us.nii.gz", "--label",
        "--direction", "fixed-to-moving", "-o", tmp_path / "o.nii.gz",
    )  # fmt: skip
    moving = read_label_map(pair / "us_gland.nii.gz").labels  # the same structure, drawn on the moving image
    assert torch.equal(read_label_map(tmp_path / "o.nii.gz").labels, moving)


@pytest.mark.parametrize("word", ["identity", "header"])
def test_without_a_transform_an_image_is_resampled_onto_a_grid(work: Path, capfd, word: str) -> None:
    write_image(Image(CONTENT, GRID), "scan.nii.gz")
    out, err = run(capfd, "apply", word, "scan.nii.gz", "--reference", "wide.nii.gz", "-o", "o.nii.gz")
    assert (err, "resampled" in out) == ("", False)
    found = read_volume("o.nii.gz").voxels
    assert torch.allclose(found[2:12, 2:14, 2:16], CONTENT, atol=1e-5)


def test_a_file_called_as_a_word_is_warned_of(work: Path, capfd) -> None:
    write_image(Image(CONTENT, GRID), "scan.nii.gz")
    Path(shift(4.0)).rename("identity")
    for name, moved in (("identity", 0), ("./identity", 2)):
        _out, err = run(
            capfd, "apply", name, "scan.nii.gz", "--reference", "wide.nii.gz", "-o", "o.nii.gz", "--overwrite"
        )
        assert ("write ./identity for the file" in err) == (name == "identity")
        found = read_volume("o.nii.gz").voxels
        assert torch.allclose(found[2:12, 2:14, 4 : 16 - moved], CONTENT[:, :, 2 + moved :], atol=1e-5)


def test_a_missing_transform_names_the_words(work: Path, capfd) -> None:
    write_image(Image(CONTENT, GRID), "scan.nii.gz")
    assert main(["apply", "identify", "scan.nii.gz", "--reference", "wide.nii.gz", "-o", "o.nii.gz"]) == 2
    err = capfd.readouterr().err
    assert "identify: no such file: expected a transform file or one of identity, header" in err


@pytest.mark.parametrize(
    ("voxels", "outside"),
    [
        (CONTENT, 0.0),  # signed, as a statistical map or a PET with negative noise
        (CONTENT.abs() + 3, float((CONTENT.abs() + 3).min())),
        (torch.where(CONTENT > 0, 200 * CONTENT, -1000.0), -1000.0),  # air of a CT
        (torch.ones(GRID.shape), 0.0),  # a mask of everything, not as a label map
    ],
    ids=["signed", "positive", "CT", "constant"],
)
def test_outside_lies_what_the_scan_means_by_nothing(work: Path, capfd, voxels: torch.Tensor, outside: float) -> None:
    write_image(Image(voxels, GRID), "scan.nii.gz")
    out, _err = run(capfd, "apply", "identity", "scan.nii.gz", "--reference", "wide.nii.gz", "-o", "o.nii.gz")
    assert f"outside it is {outside:g})" in out
    found = read_volume("o.nii.gz").voxels
    assert float(found[0, 0, 0]) == pytest.approx(outside, abs=1e-5)
    assert torch.allclose(found[2:12, 2:14, 2:16], voxels, atol=1e-3)


@pytest.mark.parametrize(("text", "value"), [("-7.5", -7.5), ("1e3", 1000.0), ("nan", float("nan"))])
def test_outside_lies_what_fill_says(work: Path, capfd, text: str, value: float) -> None:
    write_image(Image(CONTENT, GRID), "scan.nii.gz")
    run(capfd, "apply", "identity", "scan.nii.gz", "--reference", "wide.nii.gz", "-o", "o.nii.gz", "--fill", text)
    found = read_volume("o.nii.gz").voxels
    assert float(found[0, 0, 0]) == pytest.approx(value, nan_ok=True)
    assert torch.allclose(found[2:12, 2:14, 2:16], CONTENT, atol=1e-5)


def test_fill_of_a_label_map_is_a_whole_number(work: Path, capfd) -> None:
    write_label_map(LabelMap(torch.ones(GRID.shape, dtype=torch.int64), GRID), "mask.nii.gz")
    words = ["apply", "identity", "mask.nii.gz", "--reference", "wide.nii.gz", "-o", "o.nii.gz", "--label", "--fill"]
    assert main([*words, "0.5"]) == 2
    assert "whole numbers" in capfd.readouterr().err
    run(capfd, *words, "9")
    found = read_label_map("o.nii.gz").labels
    assert (int(found[0, 0, 0]), int((found == 1).sum())) == (9, 10 * 12 * 14)


def test_nan_stays_where_it_was_and_is_counted(work: Path, capfd) -> None:
    voxels = CONTENT.clone()
    voxels[:3] = torch.nan
    voxels[5, 5, 5] = torch.inf
    write_image(Image(voxels, GRID), "scan.nrrd")
    out, _err = run(capfd, "apply", "identity", "scan.nrrd", "--reference", "wide.nii.gz", "-o", "o.nrrd")
    found = read_volume("o.nrrd").voxels
    expected = torch.full(WIDE.shape, torch.nan)
    expected[2:12, 2:14, 2:16] = torch.where(voxels.isinf(), torch.nan, voxels)
    assert torch.allclose(found, expected, atol=1e-5, equal_nan=True)
    assert "outside it is nan" in out
    assert "505 voxels of it are NaN or infinite" in out
    between = read_volume("o.nrrd").resampled(Grid((2, 2, 2), (2.0, 2.0, 2.0), (1.0, 1.0, 5.0))).voxels
    assert between[0].isnan().all()  # half of each value would come of a NaN
    assert between[1].isfinite().all()
    run(capfd, "apply", "identity", "scan.nrrd", "--reference", "wide.nii.gz", "-o", "p.nrrd", "--fill", "0")
    assert float(read_volume("p.nrrd").voxels[0, 0, 0]) == 0
    assert read_volume("p.nrrd").voxels.isnan().sum() == 505


def test_an_empty_label_map_gives_an_empty_one(work: Path, capfd) -> None:
    write_label_map(LabelMap(torch.zeros(GRID.shape, dtype=torch.int64), GRID), "none.nii.gz")
    out, err = run(capfd, "apply", "identity", "none.nii.gz", "--reference", "wide.nii.gz", "-o", "o.nii.gz", "--label")
    assert "holds no label" in err
    assert "nearest voxel" in out
    assert read_label_map("o.nii.gz", allow_empty=True).labels.sum() == 0
    run(capfd, "apply", "identity", "none.nii.gz", "--reference", "wide.nii.gz", "-o", "p.nii.gz")
    assert read_volume("p.nii.gz").voxels.abs().sum() == 0


def test_a_single_slice_is_resampled_too(work: Path, capfd) -> None:
    thin = Grid((1, 12, 14), (2.0, 2.0, 2.0), (0.0, 0.0, 8.0))
    write_image(Image(CONTENT[:1], thin), "slice.nii.gz")
    run(capfd, "apply", "identity", "slice.nii.gz", "--reference", "wide.nii.gz", "-o", "o.nii.gz")
    found = read_volume("o.nii.gz").voxels
    assert torch.allclose(found[6, 2:14, 2:16], CONTENT[0], atol=1e-5)
    assert found[:6].abs().sum() == found[7:].abs().sum() == 0


@pytest.mark.parametrize("label", [False, True], ids=["scan", "labels"])
def test_an_image_resampled_the_wrong_way_round_names_the_other(pair: Path, tmp_path: Path, capfd, label: bool) -> None:
    source = "us_gland.nii.gz" if label else "us.nii.gz"
    words = [*(["--label"] if label else []), "--reference", pair / "mr.nii.gz"]
    wrong = ["--direction", "fixed-to-moving"]
    _out, err = run(capfd, "apply", pair / "reference.tfm", pair / source, *words, *wrong, "-o", tmp_path / "o.nii.gz")
    text = "no labelled voxel of us_gland.nii.gz falls on" if label else "nothing of us.nii.gz lands on"
    assert f"{text} the grid of mr.nii.gz: --direction moving-to-fixed would put " in err
    _out, err = run(capfd, "apply", pair / "reference.tfm", pair / source, *words, "-o", tmp_path / "p.nii.gz")
    assert err == ""


def test_an_inverted_transform_names_the_other_direction_too(pair: Path, tmp_path: Path, capfd) -> None:
    grid = read_image(pair / "mr.nii.gz").grid
    write_transform(Rigid(torch.eye(3, dtype=torch.float64), -grid.center_mm()), tmp_path / "inverse.tfm")
    centred = Grid.centered((0.0, 0.0, 0.0), (20, 20, 20), (2.0, 2.0, 2.0))
    write_image(Image(torch.rand(centred.shape), centred), tmp_path / "fixed.nii.gz")
    words = ["apply", tmp_path / "inverse.tfm", pair / "mr.nii.gz", "--reference", tmp_path / "fixed.nii.gz"]
    _out, err = run(capfd, *words, "-o", tmp_path / "o.nii.gz")
    assert "nothing of mr.nii.gz lands on the grid of fixed.nii.gz: --direction fixed-to-moving would put 100%" in err


def test_another_pairs_transform_and_headers_that_lie_apart_are_warned_of(work: Path, capfd) -> None:
    write_image(Image(CONTENT, Grid(GRID.shape, GRID.spacing_mm, (900.0, 0.0, 0.0))), "far.nii.gz")
    words = ["far.nii.gz", "--reference", "wide.nii.gz", "-o"]
    _out, err = run(capfd, "apply", shift(50.0), *words, "o.nii.gz")
    assert "nothing of far.nii.gz lands on the grid of wide.nii.gz: check that the transform is of this pair" in err
    _out, err = run(capfd, "apply", "identity", *words, "p.nii.gz")
    assert "the headers put the two in different places: give the transform between them" in err


def test_a_small_overlap_is_told_and_a_small_reference_is_not(work: Path, capfd) -> None:
    write_image(Image(CONTENT, GRID), "scan.nii.gz")
    _out, err = run(capfd, "apply", shift(27.0), "scan.nii.gz", "--reference", "wide.nii.gz", "-o", "o.nii.gz")
    assert "overlap in only" in err
    corner = Grid((3, 3, 3), (2.0, 2.0, 2.0), (4.0, 4.0, 4.0))
    write_image(Image(torch.rand(3, 3, 3), corner), "corner.nii.gz")
    _out, err = run(capfd, "apply", "identity", "scan.nii.gz", "--reference", "corner.nii.gz", "-o", "p.nii.gz")
    assert err == ""


def test_a_label_map_without_label_is_warned_of(pair: Path, tmp_path: Path, capfd) -> None:
    words = ["apply", pair / "start.tfm", pair / "us_gland.nii.gz", "--reference", pair / "mr.nii.gz"]
    _out, err = run(capfd, *words, "-o", tmp_path / "o.nii.gz")
    assert "us_gland.nii.gz: its integers look like labels" in err
    assert "pass --label" in err
    _out, err = run(capfd, *words, "-o", tmp_path / "p.nii.gz", "--label")
    assert err == ""
