"""`crossalign transform convert T.tfm OUT.dcm`: a Spatial Registration object, read back by pydicom and dciodvfy."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from tests.images.checker import CHECKER, errors_in, needs_checker
from tests.images.dicom_files import ROOT, write_series

from crossalign.cli.main import main
from crossalign.geometry import Rigid
from crossalign.images import write_transform

FIXED_TO_MOVING = Rigid.from_parameters(
    torch.tensor([12.5, -7.25, 30.0, 15.0, -40.0, 100.0], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
)
SERIES = "--fixed-series fixed --moving-series moving"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with t.tfm and two series of one patient, in two studies and frames of reference."""
    monkeypatch.chdir(tmp_path)
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    write_series(tmp_path / "fixed", voxels)
    write_series(tmp_path / "moving", voxels, series=2, FrameOfReferenceUID=f"{ROOT}22", StudyInstanceUID=f"{ROOT}11")
    write_transform(FIXED_TO_MOVING, "t.tfm")
    return tmp_path


def convert(capfd: pytest.CaptureFixture[str], line: str, status: int = 0) -> tuple[str, str]:
    assert main(["transform", "convert", *line.split()]) == status
    out, err = capfd.readouterr()
    return out, err


def matrices(path: Path) -> dict[str, np.ndarray]:
    """The matrix of each frame of reference, to that of the object."""
    dataset = pydicom.dcmread(path)
    assert dataset.SOPClassUID.name == "Spatial Registration Storage"
    found = {}
    for item in dataset.RegistrationSequence:
        (one,) = item.MatrixRegistrationSequence[0].MatrixSequence
        assert one.FrameOfReferenceTransformationMatrixType == "RIGID"
        values = np.array(one.FrameOfReferenceTransformationMatrix, np.float64).reshape(4, 4)
        found[str(item.FrameOfReferenceUID)] = values
    return found


def test_the_object_maps_moving_points_to_the_fixed_frame(work: Path, capfd) -> None:
    out, err = convert(capfd, f"t.tfm out.dcm {SERIES}")
    assert "maps moving points to fixed points" in out
    assert err == ""
    found = matrices(work / "out.dcm")
    assert list(found) == [f"{ROOT}2", f"{ROOT}22"]
    assert np.array_equal(found[f"{ROOT}2"], np.eye(4))
    assert np.allclose(found[f"{ROOT}22"], FIXED_TO_MOVING.inverse().matrix(), atol=1e-11)


@needs_checker
def test_an_independent_checker_finds_no_error(work: Path, capfd) -> None:
    convert(capfd, f"t.tfm out.dcm {SERIES}")
    assert errors_in(work / "out.dcm", "SpatialRegistration") == []


def test_it_refers_to_every_image_and_is_filed_under_the_fixed_series(work: Path, capfd) -> None:
    convert(capfd, f"t.tfm out.dcm {SERIES}")
    dataset = pydicom.dcmread("out.dcm")
    assert (dataset.PatientID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID) == (
        "PID4711", f"{ROOT}1", f"{ROOT}2",
    )  # fmt: skip
    images = [
        {one.ReferencedSOPInstanceUID for one in item.ReferencedImageSequence} for item in dataset.RegistrationSequence
    ]
    assert images == [{f"{ROOT}4.{series}.{number}" for number in range(3)} for series in (1, 2)]
    (own,) = dataset.ReferencedSeriesSequence
    (other,) = dataset.StudiesContainingOtherReferencedInstancesSequence
    assert own.SeriesInstanceUID == f"{ROOT}3.1"
    assert (other.StudyInstanceUID, other.ReferencedSeriesSequence[0].SeriesInstanceUID) == (f"{ROOT}11", f"{ROOT}3.2")


def test_the_direction_of_the_input_does_not_matter(work: Path, capfd) -> None:
    main(["transform", "invert", "t.tfm", "i.tfm"])
    convert(capfd, f"i.tfm out.dcm {SERIES} --direction moving-to-fixed")
    assert np.allclose(matrices(work / "out.dcm")[f"{ROOT}22"], FIXED_TO_MOVING.inverse().matrix(), atol=1e-11)


def test_nothing_that_is_printed_identifies_the_patient(work: Path, capfd) -> None:
    write_series(work / "other", np.ones((2, 3, 3), np.int16), series=3, PatientID="4712")
    out, err = convert(capfd, "t.tfm out.dcm --fixed-series fixed --moving-series other")
    assert "one frame of reference" in err
    assert "different patient numbers" in err
    assert not any(word in out + err for word in ("Mustermann", "PID4711", "4712", ROOT))


REFUSED = {
    "t.tfm out.dcm": "--fixed-series and --moving-series",
    "t.tfm out.dcm --fixed-series fixed": "with --moving-series",
    f"t.tfm out.dcm {SERIES} --output-direction fixed-to-moving": "always maps moving points",
    f"t.tfm out.h5 {SERIES}": "leave them out",
    "t.tfm out.dcm --fixed-series fixed --moving-series .": "holds 2 series",
    "t.tfm out.dcm --fixed-series fixed --moving-series no": "no such file",
    "t.tfm out.dcm --fixed-series fixed --moving-series lost": "no frame of reference",
}


@pytest.mark.parametrize(("line", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_what_cannot_be_written_is_refused(work: Path, capfd, line: str, message: str) -> None:
    if "lost" in line:
        write_series(work / "lost", np.ones((2, 3, 3), np.int16), series=3, FrameOfReferenceUID=None)
    out, err = convert(capfd, line, status=2)
    assert message in err
    assert out == ""
    assert not list(work.glob("out*"))


def test_real_series_in_one_frame_of_reference(shared_data: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    write_transform(FIXED_TO_MOVING, "t.tfm")
    scans = shared_data / "dicom" / "sts002"
    line = f"t.tfm out.dcm --fixed-series {scans}/MR_T1/image --moving-series {scans}/PET/image"
    _, err = convert(capfd, line)
    assert "one frame of reference" in err
    dataset = pydicom.dcmread("out.dcm")
    (one,) = dataset.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence
    found = np.array(one.FrameOfReferenceTransformationMatrix, np.float64).reshape(4, 4)
    assert np.allclose(found, FIXED_TO_MOVING.inverse().matrix(), atol=1e-11)
    assert CHECKER is None or errors_in(tmp_path / "out.dcm", "SpatialRegistration") == []
