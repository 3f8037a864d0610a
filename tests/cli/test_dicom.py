"""Commands on DICOM folders and files: what they write, what they choose among, and that nobody is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.images.dicom_files import IDENTITY, PT, save, structure_set, write_series

from crossalign.cli.main import main
from crossalign.images import read_grid, read_image, read_label_map, read_transform
from crossalign.training.data_record import file_digest

SHAPE = (12, 20, 24)
Z, Y, X = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
SCAN = (2000 * np.exp(-3 * (X**2 + Y**2 + Z**2)) + 300 * (X > 0)).astype(np.int16)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A folder as a clinic may export it: two MR series, a PET and contours, under the patient's name."""
    folder = tmp_path / "MUSTERMANN_ERIKA_19570412"
    write_series(folder / "1", SCAN, series=3, SeriesDescription="T1 Mustermann")
    write_series(folder / "2", SCAN[::-1].copy(), series=4, SeriesDescription="T2 PID4711")
    values: dict[str, Any] = {"Units": "BQML", "DecayCorrection": "ADMIN", "RescaleSlope": 10, "RescaleIntercept": 0}
    write_series(folder / "3", SCAN, series=5, sop_class=PT, modality="PT", **values)
    corners = np.array([(5.0, 6.0), (15.0, 6.0), (15.0, 14.0), (5.0, 14.0)])
    grid = read_grid(folder / "1")
    index = [np.column_stack((corners, np.full(4, depth))) for depth in range(3, 9)]
    contours = [grid.to_physical(torch.from_numpy(one)).numpy() for one in index]
    save(structure_set({"gland": contours, "Erika": contours[:2]}), tmp_path / "contours.dcm")
    return folder


def run(capfd: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    out, err = capfd.readouterr()
    return status, out, err


def nobody_is_named(text: str) -> bool:
    return not [word for word in (*IDENTITY, "MUSTERMANN", "ERIKA") if word in text]


def test_register_takes_series_of_one_folder(export: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(
        capfd, "register", export, export, "--fixed-series", "t1", "--moving-series", "4", "--method", "identity",
        "--fixed-mask", tmp_path / "contours.dcm", "--mask-label", "gland", "--initial", "header",
        "--output-transform", tmp_path / "out.tfm", "--moved", tmp_path / "moved.nii.gz",
        "--record", tmp_path / "out.json", "--report", tmp_path / "out.html",
    )  # fmt: skip
    assert status == 0, err
    assert torch.equal(read_transform(tmp_path / "out.tfm").matrix(), torch.eye(4, dtype=torch.float64))
    moved = read_image(tmp_path / "moved.nii.gz")
    assert np.allclose(moved.voxels, SCAN[::-1], atol=1e-2)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["files"]["fixed"] == record["files"]["moving"] == record["files"]["fixed_mask"] == "DICOM series"
    assert nobody_is_named((tmp_path / "out.json").read_text() + (tmp_path / "out.html").read_text())
    assert nobody_is_named(out + err)


def test_a_choice_is_asked_for_without_identity(
    export: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.tfm"
    status, out, err = run(
        capfd, "register", export, export / "1", "--output-transform", output, "--method", "identity"
    )
    assert (status, out) == (2, "")
    assert "holds 3 series, expected one: 3: MR 'T1 ***', 12 slices of 24 x 20; 4: MR 'T2 ***'" in err
    assert nobody_is_named(err.replace(export.name, ""))
    mask = ("--fixed-mask", tmp_path / "contours.dcm")
    status, _, err = run(capfd, "register", export / "1", export / "2", *mask, "--output-transform", output)
    assert status == 2
    assert "it holds 5 'gland', 6 '***': several structures, expected one" in err
    assert "--mask-label NAME|N" in err
    assert not output.exists()


def test_apply_takes_a_file_of_a_series_and_contours(
    export: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = next((export / "2").iterdir())
    status, out, err = run(
        capfd, "apply", "identity", one, "--reference", export, "--reference-series", "T1", "-o", tmp_path / "moved.mha"
    )
    assert status == 0, err
    assert nobody_is_named(out + err)
    assert np.allclose(read_image(tmp_path / "moved.mha").voxels, SCAN[::-1], atol=1e-2)
    save(
        structure_set({"gland": [np.array([[-18, 12, 5.0], [-8, 12, 5], [-8, 30, 5], [-18, 30, 5]])]}), tmp_path / "rs"
    )
    words = ("--reference", export / "1", "--label", "-o", tmp_path / "gland.nii.gz")
    status, _, err = run(capfd, "apply", "identity", tmp_path / "rs", *words)
    assert status == 0, err
    assert int(read_label_map(tmp_path / "gland.nii.gz").labels.sum()) > 20


def test_fuse_says_what_a_pet_is_in(export: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--method", "laplacian", "-o", tmp_path / "f.nii.gz")
    status, out, err = run(capfd, "fuse", export / "1", export / "3", *words)
    assert status == 0, err
    assert "PET stays in BQML, no SUV could be computed: the weight and the injected dose are not in the header" in err
    assert nobody_is_named(out + err + (tmp_path / "f.json").read_text())
    status, _, err = run(capfd, "fuse", export, export, "--mri-series", "T1", *words, "--overwrite")
    assert status == 2
    assert "holds 3 series" in err


def test_an_output_is_no_file_of_the_input(export: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = next((export / "2").iterdir())
    renamed = one.rename(one.with_name("slice.nii.gz"))
    words = ("--reference", export / "1", "-o", renamed, "--overwrite")
    status, _, err = run(capfd, "apply", "identity", export / "2", *words)
    assert status == 2
    assert "is an input of this run" in err


def test_a_manifest_may_name_folders(export: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = export.rename(tmp_path / "export")
    (tmp_path / "pairs.csv").write_text("case,mri,pet,split\na,export/1,export/3,test\n")
    words = ("--method", "average", "-o", tmp_path / "scores.csv")
    status, _, err = run(capfd, "evaluate-fusion", tmp_path / "pairs.csv", *words)
    assert status == 0, err
    (tmp_path / "none").mkdir()
    (tmp_path / "pairs.csv").write_text("case,mri,pet,split\na,none,export/3,test\n")
    status, _, err = run(capfd, "evaluate-fusion", tmp_path / "pairs.csv", *words, "--overwrite")
    assert status == 2
    assert "column 'mri': is a folder, expected a file: none" in err
    assert folder.is_dir()


def test_real_series_are_registered_and_fused(
    shared_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data / "dicom" / "sts002"
    t1, pet, ct = (folder / name / "image" for name in ("MR_T1", "PET", "CT"))
    mask = ("--fixed-mask", folder / "MR_T1" / "mask" / "RS.dcm", "--mask-label", "GTV_Mass_MR_T1")
    other = ("--moving-mask", folder / "CT" / "mask")
    words = ("--method", "identity", "--output-transform", tmp_path / "t.tfm", "--record", tmp_path / "t.json")
    status, out, err = run(capfd, "register", t1, ct, *mask, *other, *words)
    assert status == 0, err
    assert json.loads((tmp_path / "t.json").read_text())["initialisation"]["name"] == "header"
    status, out, err = run(capfd, "fuse", t1, pet, "-o", tmp_path / "f.nii.gz", "--method", "laplacian")
    assert status == 0, err
    assert "SUV became 0 to 1" in out
    assert read_grid(tmp_path / "f.nii.gz").agrees_with(read_grid(t1), tolerance_mm=1e-3)


def test_a_run_notices_that_a_slice_of_its_data_changed(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "s", SCAN)
    before = file_digest(tmp_path / "s")
    assert file_digest(tmp_path / "s") == before
    content = bytearray(paths[3].read_bytes())
    content[-1] ^= 1
    paths[3].write_bytes(content)
    assert file_digest(tmp_path / "s") != before
