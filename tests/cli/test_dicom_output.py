"""--dicom-out of register, apply and fuse: series that are read back, filed with the fixed image; nobody is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from tests.images.checker import CHECKER, errors_in
from tests.images.dicom_files import IDENTITY, PT, ROOT, write_series

from crossalign.cli.main import main
from crossalign.images import Image, read_grid, read_image, write_image
from crossalign.images.files.dicom.header import DicomHeader, read_dicom_header

SHAPE = (12, 20, 24)
Z, Y, X = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
SCAN = (2000 * np.exp(-3 * (X**2 + Y**2 + Z**2)) + 300 * (X > 0)).astype(np.int16)
PET: dict[str, Any] = {
    "Units": "GML",
    "SUVType": "BW",
    "DecayCorrection": "ADMIN",
    "RescaleSlope": 0.002,
    "RescaleIntercept": 0,
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An MR and a PET series of one patient, and an ultrasound volume as NIfTI."""
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path / "MR", SCAN, series=3, SeriesDescription="T1 Mustermann")
    pet = SCAN[::-1].copy() * (X**2 + Y**2 < 0.5).astype(np.int16)
    write_series(tmp_path / "PET", pet, series=5, sop_class=PT, modality="PT", **PET)
    scan = torch.from_numpy(SCAN.astype(np.float32)) / 10
    write_image(Image(scan, read_grid("MR")), tmp_path / "us.nii.gz")
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], line: str, status: int = 0) -> tuple[str, str]:
    assert main(line.split()) == status
    out, err = capfd.readouterr()
    assert not [word for word in IDENTITY if word in out + err]
    return out, err


def first(folder: Path) -> Any:
    return pydicom.dcmread(folder / "slice_00001.dcm")


def no_checker_complains(folder: Path, kind: str) -> None:
    assert CHECKER is None or errors_in(folder / "slice_00001.dcm", kind) == []


def test_register_writes_the_moved_image_as_a_series(work: Path, capfd) -> None:
    out, err = run(
        capfd, "register MR us.nii.gz --method identity --output-transform t.tfm --moved m.nii.gz --dicom-out moved"
    )
    assert err == ""
    assert "wrote    moved (the moving image on the fixed grid" in out
    one = first(work / "moved")
    assert (one.PatientID, one.StudyInstanceUID, one.FrameOfReferenceUID) == ("PID4711", f"{ROOT}1", f"{ROOT}2")
    assert (one.Modality, one.SeriesDescription) == ("OT", "Registered image, research only")
    assert "registered to the fixed one by identity" in one.DerivationDescription
    moved, back = read_image("m.nii.gz"), read_image("moved")
    assert back.grid.agrees_with(read_grid("MR"), 1e-6)
    assert float((moved.voxels - back.voxels).abs().max()) <= 0.501 * float(one.RescaleSlope)
    no_checker_complains(work / "moved", "SCImage")


def test_the_record_of_a_registration_names_nobody(work: Path, capfd) -> None:
    line = "register us.nii.gz MR --method identity --output-transform t.tfm --record r.json --dicom-out moved --json"
    out, err = run(capfd, line)
    assert "placeholder patient" in err
    assert str(Path("moved") / "slice_00012.dcm") in out
    record = (work / "r.json").read_text()
    assert "placeholder patient" in record
    assert not [word for word in IDENTITY if word in record]
    assert (first(work / "moved").Modality, str(first(work / "moved").PatientName)) == ("MR", "Placeholder^crossalign")


def test_a_result_that_is_not_to_be_trusted_says_so_in_its_series(work: Path, capfd) -> None:
    scan = read_image("us.nii.gz")
    far = torch.eye(4, dtype=torch.float64)
    far[0, 3] = 15.0
    np.savetxt("far.txt", far.numpy())
    write_image(scan, "far.nii.gz")
    Path("far.tfm").write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        "Parameters: 1 0 0 0 1 0 0 0 1 15.5 0 0\nFixedParameters: 0 0 0\n"
    )
    run(capfd, "register MR us.nii.gz --initial far.tfm --method identity --output-transform t.tfm --dicom-out moved")
    one = first(work / "moved")
    assert one.SeriesDescription == "Registered image, not trusted, research only"
    assert "Do not trust this result." in one.DerivationDescription


def test_apply_writes_a_series_alone_or_beside_a_file(work: Path, capfd) -> None:
    out, err = run(capfd, "apply identity PET --reference MR --dicom-out a")
    assert (out.count("wrote"), err) == (1, "")
    assert (first(work / "a").Units, read_image("a").unit) == ("GML", "SUV")
    out, _ = run(capfd, "apply identity PET --reference MR --dicom-out b -o b.nii.gz --dicom-identity remove")
    assert out.count("wrote") == 2
    assert torch.allclose(read_image("b.nii.gz").voxels, read_image("b").voxels, atol=1e-4)
    assert not [word for word in IDENTITY if word.encode() in (work / "b" / "slice_00003.dcm").read_bytes()]
    no_checker_complains(work / "a", "PETImage")


def test_fuse_writes_the_volume_and_the_overlay(work: Path, capfd) -> None:
    out, _ = run(capfd, "fuse MR PET -o f.nii.gz --method average --dicom-out f --json")
    assert sum("slice_" in path for path in json.loads(out)["outputs"]) == 2 * SHAPE[0]
    fused, one = read_image("f.nii.gz"), first(work / "f" / "fused")
    back = read_image(work / "f" / "fused")
    assert float((fused.voxels - back.voxels).abs().max()) <= 0.501 * float(one.RescaleSlope)
    assert (one.SeriesDescription, one.FrameOfReferenceUID) == ("Fused MR and PET, research only", f"{ROOT}2")
    assert len(one.SourceImageSequence) == 2 * SHAPE[0]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(work / "f" / "overlay")))
    colours = sitk.GetArrayFromImage(reader.Execute())
    assert colours.shape == (*SHAPE, 3)
    grey = (colours[..., 0] == colours[..., 1]) & (colours[..., 1] == colours[..., 2])
    uptake = read_image("PET").voxels.numpy()
    assert grey[uptake == 0].all()
    assert not grey[uptake > 0.8 * uptake.max()].any()
    over = first(work / "f" / "overlay")
    assert (over.PhotometricInterpretation, over.SeriesNumber, one.SeriesNumber) == ("RGB", 2003, 1003)
    assert "PET in colours (inferno) over the MRI in grey" in over.DerivationDescription
    for part in ("fused", "overlay"):
        no_checker_complains(work / "f" / part, "SCImage")


REFUSED = {
    "apply identity us.nii.gz --reference MR": "name what to write",
    "apply identity us.nii.gz --reference MR --label -o l.nii.gz --dicom-out out": "--dicom-out is for scans",
    "apply identity us.nii.gz --reference MR -o out.nii.gz --dicom-identity remove": "needs --dicom-out",
    "apply identity us.nii.gz --reference MR --dicom-out PET": "exists already",
    "apply identity us.nii.gz --reference MR --dicom-out MR/out": "lies in a folder of images that this run reads",
    "register MR us.nii.gz --output-transform t.tfm --dicom-out PET --overwrite": "exists already",
    "fuse MR PET -o f.nii.gz --dicom-out none/out": "not a folder that exists",
}


@pytest.mark.parametrize(("line", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_what_cannot_be_written_is_refused(work: Path, capfd, line: str, message: str) -> None:
    before = sorted(work.rglob("*"))
    out, err = run(capfd, line, status=2)
    assert message in err
    assert out == ""
    assert sorted(work.rglob("*")) == before


def test_all_outputs_appear_or_none(work: Path, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydicom.Dataset, "save_as", full)
    before = sorted(work.rglob("*"))
    _, err = run(capfd, "register MR us.nii.gz --method identity --output-transform t.tfm --dicom-out moved", status=2)
    assert "no space left on the disk" in err
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize(
    "line",
    [
        "register MR PET --method identity --output-transform t.tfm --dicom-out moved",
        "apply identity PET --reference MR --dicom-out moved",
        "fuse MR PET --method average -o f.nii.gz --dicom-out moved",
    ],
)
def test_each_header_is_read_once(work: Path, capfd, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    read: list[Path] = []

    def reading(path: Path, name: str) -> DicomHeader:
        read.append(path)
        return read_dicom_header(path, name)

    monkeypatch.setattr("crossalign.images.files.dicom.series.read_dicom_header", reading)
    run(capfd, line)
    assert len(read) == len(set(read)) == 2 * len(SCAN)


def test_a_pet_that_is_named_first_is_told(work: Path, capfd) -> None:
    _, err = run(capfd, "fuse PET MR --method average -o f.nii.gz")
    assert "the first image is a PET (DICOM header)" in err
    assert "name the MRI or CT, and then the PET" in err
    _, err = run(capfd, "fuse MR PET --method average -o right.nii.gz")
    assert "the first image" not in err
