"""Derived DICOM series: read back by SimpleITK, pydicom, dciodvfy and this library; whose they are; what they hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tests.images.checker import errors_in, needs_checker
from tests.images.dicom_files import CT, IDENTITY, MR, PT, ROOT, item, write_series

from crossalign.errors import ImageError, InputWarning, OutputError
from crossalign.geometry import Grid
from crossalign.images import Image, read_grid, read_image
from crossalign.images.files.dicom.derived import Derivation
from crossalign.images.files.dicom.output import PLACEHOLDER, TWO_PATIENTS, DicomOutput, series_of, write_dicom_series
from crossalign.images.files.dicom.quantisation import Quantisation

SHAPE = (4, 6, 5)
TILTED = ((0.8, 0.0, -0.6), (0.0, 1.0, 0.0), (0.6, 0.0, 0.8))
MIRRORED = ((0.8, 0.0, 0.6), (0.0, 1.0, 0.0), (0.6, 0.0, -0.8))
GRID = Grid(SHAPE, (1.25, 0.75, 3.0), (-31.5, 12.125, 7.0), TILTED)
DOSE = {
    "RadiopharmaceuticalStartTime": "091500", "RadiopharmaceuticalStartDateTime": "20240229091500",
    "RadionuclideTotalDose": 3.7e8, "RadionuclideHalfLife": 6586.2,
    "RadiopharmaceuticalAdministrationEventUID": f"{ROOT}9",
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "MR": (MR, {"EchoTime": 90, "ScanningSequence": "SE"}),
    "CT": (CT, {"RescaleIntercept": -1024, "RescaleSlope": 1, "KVP": 120}),
    "PT": (PT, {
        "Units": "BQML", "DecayCorrection": "ADMIN", "RescaleSlope": 10, "RescaleIntercept": 0, "PatientWeight": 70,
        "CorrectedImage": ["DECY", "ATTN"], "AcquisitionTime": "101500",
    }),
}  # fmt: skip
CHECKED = {"MR": "MRImage", "CT": "CTImage", "PT": "PETImage", "US": "SCImage"}


def scan(scale: float = 1000.0, low: float = 0.0) -> Image:
    """A scan with fractions on a tilted grid."""
    noise = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3))
    return Image(low + scale * noise, GRID, "Mustermann.nii.gz")


def source(folder: Path, kind: str, **changes: Any) -> Path:
    """A series of a modality, of the patient of tests.images.dicom_files."""
    sop_class, words = KINDS[kind]
    words = words | changes
    if kind == "PT":
        words["RadiopharmaceuticalInformationSequence"] = [item(**DOSE)]
    voxels = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7) * 9
    write_series(folder / kind, voxels, series=7, sop_class=sop_class, modality=kind, **words)
    return folder / kind


def by_simpleitk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def slices(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def check_grid(found: sitk.Image, grid: Grid) -> None:
    assert found.GetSize() == grid.shape[::-1]
    assert np.allclose(found.GetSpacing(), grid.spacing_mm, atol=1e-6)
    assert np.allclose(found.GetOrigin(), grid.origin_mm, atol=1e-6)
    assert np.allclose(np.array(found.GetDirection()).reshape(3, 3), grid.direction, atol=1e-6)


@pytest.mark.parametrize("kind", [*KINDS, "US"])
def test_both_readers_read_what_was_written(kind: str, tmp_path: Path) -> None:
    image = scan(low=-1000.0 if kind == "CT" else 0.0)
    of = None if kind == "US" else source(tmp_path, kind)
    notes = write_dicom_series(image, tmp_path / "out", source(tmp_path, "MR"), of)
    assert notes == ()
    first = slices(tmp_path / "out")[0]
    step = float(first.get("RescaleSlope", 1.0))
    assert step <= (1.0 if kind == "MR" else 1000 / 65_000)
    found = by_simpleitk(tmp_path / "out")
    check_grid(found, GRID)
    assert np.abs(sitk.GetArrayFromImage(found) - image.voxels.numpy()).max() <= 0.501 * step
    if kind == "PT":
        with pytest.warns(InputWarning, match="stays in BQML"):  # the dose went along, the weight did not
            back = read_image(tmp_path / "out")
    else:
        back = read_image(tmp_path / "out")
    assert back.grid.agrees_with(GRID, 1e-5)
    assert float((back.voxels - image.voxels).abs().max()) <= 0.501 * step


def test_suv_stays_suv(tmp_path: Path) -> None:
    pet = read_image(source(tmp_path, "PT"))
    assert pet.unit == "SUV"
    write_dicom_series(pet, tmp_path / "out", None, tmp_path / "PT")
    one = slices(tmp_path / "out")[0]
    assert (one.Units, one.SUVType, float(one.RescaleIntercept)) == ("GML", "BW", 0.0)
    back = read_image(tmp_path / "out")
    assert back.unit == "SUV"
    assert torch.allclose(back.voxels, pet.voxels, atol=0.501 * float(one.RescaleSlope))


def test_its_header_says_whose_it_is_and_what_was_done(tmp_path: Path) -> None:
    fixed = source(tmp_path / "fixed", "MR")
    moving = source(tmp_path / "moving", "CT", StudyInstanceUID=f"{ROOT}77", FrameOfReferenceUID=f"{ROOT}88")
    write_dicom_series(scan(), tmp_path / "out", fixed, moving, description="Moved by hand.")
    found = slices(tmp_path / "out")
    one = found[0]
    assert (one.PatientID, one.StudyInstanceUID, one.FrameOfReferenceUID) == ("PID4711", f"{ROOT}1", f"{ROOT}2")
    assert (one.SOPClassUID, one.Modality, one.ImageType[:2]) == (CT, "CT", ["DERIVED", "SECONDARY"])
    assert "Moved by hand." in one.DerivationDescription
    assert "not a medical device" in one.DerivationDescription
    assert "not a medical device" in one.ImageComments
    assert one.DerivationCodeSequence[0].CodeMeaning == "Spatial resampling"
    assert one.ContributingEquipmentSequence[0].SoftwareVersions
    sources = {of.ReferencedSOPInstanceUID for of in one.SourceImageSequence}
    assert sources == {f"{ROOT}4.7.{number}" for number in range(5)}
    (study,) = one.StudiesContainingOtherReferencedInstancesSequence
    assert (study.StudyInstanceUID, study.ReferencedSeriesSequence[0].SeriesInstanceUID) == (f"{ROOT}77", f"{ROOT}3.7")
    assert len({of.SOPInstanceUID for of in found}) == SHAPE[0]
    (series,) = {of.SeriesInstanceUID for of in found}
    assert series not in (f"{ROOT}3.7", str(one.SOPInstanceUID))
    assert [of.InstanceNumber for of in found] == [1, 2, 3, 4]
    assert not [path.name for path in (tmp_path / "out").iterdir() if any(word in path.name for word in IDENTITY)]
    assert not [word for word in (*IDENTITY[:1], "nii") if word in one.SeriesDescription + one.DerivationDescription]


def test_a_fixed_image_that_is_no_dicom_makes_a_placeholder(tmp_path: Path) -> None:
    notes = write_dicom_series(scan(), tmp_path / "a", None, source(tmp_path, "CT"))
    write_dicom_series(scan(), tmp_path / "b", None)
    assert notes == (PLACEHOLDER,)
    one, other = slices(tmp_path / "a")[0], slices(tmp_path / "b")[0]
    assert one.PatientName == "Placeholder^crossalign"
    assert one.PatientID != other.PatientID
    assert one.StudyInstanceUID != other.StudyInstanceUID
    assert len(one.SourceImageSequence) == 5


def test_the_identity_can_be_left_out(tmp_path: Path) -> None:
    pet = source(tmp_path, "PT", SeriesDate="20240229")
    write_dicom_series(scan(), tmp_path / "out", source(tmp_path, "MR"), pet, identity="remove")
    for path in (tmp_path / "out").iterdir():
        assert not [word for word in IDENTITY if word.encode() in path.read_bytes()]
        one = pydicom.dcmread(path)
        assert one.PatientIdentityRemoved == "YES"
        assert "SourceImageSequence" not in one
        uids = [str(element.value) for element in one.iterall() if element.VR == "UI"]
        assert not [
            uid for uid in uids if uid in [f"{ROOT}{number}" for number in (1, 2, 9)] or uid.startswith(f"{ROOT}3.7")
        ]


def test_images_of_two_patients_are_told(tmp_path: Path) -> None:
    other = source(tmp_path, "CT", PatientID="4712")
    assert write_dicom_series(scan(), tmp_path / "out", source(tmp_path, "MR"), other) == (TWO_PATIENTS,)


def test_left_handed_grids_keep_every_voxel_in_its_place(tmp_path: Path) -> None:
    mirrored = Grid(SHAPE, GRID.spacing_mm, GRID.origin_mm, MIRRORED)
    image = Image(scan().voxels, mirrored)
    write_dicom_series(image, tmp_path / "out")
    back = read_image(tmp_path / "out")
    assert float((back.resampled(mirrored).voxels - image.voxels).abs().max()) < 0.1
    assert torch.equal(back.voxels.flip(0).argmax(), image.voxels.argmax())


def test_voxels_without_a_value_are_told(tmp_path: Path) -> None:
    image = scan()
    image.voxels[0, 0, :2] = torch.tensor([torch.nan, torch.inf])
    (placeholder, note) = write_dicom_series(image, tmp_path / "out")
    assert placeholder == PLACEHOLDER
    assert note.startswith("2 voxels that are NaN or infinite")
    empty = Image(torch.full(SHAPE, torch.nan), GRID)
    with pytest.raises(ImageError, match="no finite value"):
        write_dicom_series(empty, tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="image"):
        write_dicom_series(wrong, tmp_path / "out")
    with pytest.raises(TypeError, match="identity"):
        write_dicom_series(scan(), tmp_path / "out", identity=wrong)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        write_dicom_series(scan(), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_colours_are_read_back(tmp_path: Path) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    fixed = series_of(source(tmp_path, "MR"))
    output = DicomOutput.of(fixed, Derivation("PET over MR.", "Overlay", () if fixed is None else (fixed,)))
    (tmp_path / "out").mkdir()
    output.write_colours(rgb, GRID, tmp_path / "out")
    found = by_simpleitk(tmp_path / "out")
    check_grid(found, GRID)
    assert np.array_equal(sitk.GetArrayFromImage(found), rgb)
    one = slices(tmp_path / "out")[0]
    assert (one.PhotometricInterpretation, one.ImageType[0], one.PatientID) == ("RGB", "DERIVED", "PID4711")
    with pytest.raises(ImageError, match="the grid says"):
        output.write_colours(rgb[:2], GRID, tmp_path / "out")


@needs_checker
@pytest.mark.parametrize("kind", [*KINDS, "US", "RGB"])
@pytest.mark.parametrize("identity", ["keep", "remove"])
def test_an_independent_checker_finds_no_error(kind: str, identity: Any, tmp_path: Path) -> None:
    fixed = source(tmp_path, "MR")
    of = source(tmp_path, kind) if kind in KINDS else None
    if kind == "RGB":
        (tmp_path / "out").mkdir()
        output = DicomOutput.of(series_of(fixed), Derivation("PET over MR.", "Overlay"), identity)
        output.write_colours(np.zeros((*SHAPE, 3), np.uint8), GRID, tmp_path / "out")
    else:
        write_dicom_series(scan(0.5 if kind == "US" else 900), tmp_path / "out", fixed, of, identity=identity)
    assert errors_in(tmp_path / "out" / "slice_00002.dcm", CHECKED.get(kind, "SCImage")) == []


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=3, max_dims=3, max_side=4),
        elements=st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False),
    ),
    st.sampled_from(["MR", "CT", "PT", ""]),
)
def test_values_are_kept_within_half_a_step(voxels: np.ndarray, kind: str) -> None:
    found = Quantisation.of(voxels, kind)
    back = found.stored(voxels).astype(np.float64) * found.slope + found.intercept
    assert np.abs(back - voxels).max() <= found.slope * 0.5 * (1 + 1e-3) + 1e-9 * np.abs(voxels).max()
    assert kind != "PT" or found.intercept == 0


@settings(deadline=None)
@given(arrays(np.int16, (2, 3, 4)), st.sampled_from(["MR", "CT", "PT", ""]))
def test_whole_numbers_of_16_bits_stay_as_they_are(voxels: np.ndarray, kind: str) -> None:
    found = Quantisation.of(voxels.astype(np.float32), kind)
    assert (found.slope, found.intercept) == (1.0, 0.0)
    assert np.array_equal(found.stored(voxels.astype(np.float32)).astype(np.int32), voxels)


def test_real_series_come_back(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom" / "sts002"
    fixed = folder / "MR_T1" / "image"
    whole = read_grid(fixed)
    grid = whole.part((10, 0, 0), (6, *whole.shape[1:]))
    for name in ("MR_T1", "PET", "CT"):
        of = folder / name / "image"
        moved = read_image(of).resampled(grid)
        write_dicom_series(moved, tmp_path / name, fixed, of)
        step = float(slices(tmp_path / name)[0].get("RescaleSlope", 1.0))
        found, back = by_simpleitk(tmp_path / name), read_image(tmp_path / name)
        check_grid(found, grid)
        assert np.abs(sitk.GetArrayFromImage(found) - moved.voxels.numpy()).max() <= 0.501 * step
        assert back.grid.agrees_with(grid, 1e-6)
        assert back.unit == ("SUV" if name == "PET" else "")
        assert float((back.voxels - moved.voxels).abs().max()) <= 0.501 * step
