"""DICOM series: as SimpleITK's series reader sees them, as the NIfTI files that they stand for, and what is refused."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from tests.images.dicom_files import (
    CT,
    IDENTITY,
    ORIGIN,
    ROOT,
    SPACING,
    STEP,
    ULTRASOUND,
    base,
    enhanced,
    item,
    save,
    set_pixels,
    write_series,
)

from crossalign.errors import ImageError, InputWarning
from crossalign.geometry import Rigid
from crossalign.images import read_grid, read_image, read_volume
from crossalign.images.files.dicom import series as dicom_series

VOXELS = np.random.default_rng(0).integers(0, 4000, (4, 6, 5)).astype(np.int16)


def refused(path: Path, message: str, **how: Any) -> str:
    """Read what must be refused with this message, and without a word of the patient."""
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path, **how)
    text = str(caught.value)
    assert not [word for word in IDENTITY if word.lower() in text.lower().replace(path.name.lower(), "")]
    return text


def itk_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    return image[:, :, :, 0] if image.GetDimension() == 4 else image


def assert_equal_to_itk(folder: Path, tolerance: float = 1e-4) -> None:
    image, itk = read_volume(folder), itk_series(folder)
    assert np.allclose(image.voxels, sitk.GetArrayFromImage(itk), atol=1e-3, rtol=1e-6)
    assert np.allclose(image.grid.spacing_mm, itk.GetSpacing(), atol=tolerance)
    assert np.allclose(image.grid.origin_mm, itk.GetOrigin(), atol=tolerance)
    assert np.allclose(np.ravel(image.grid.direction), itk.GetDirection(), atol=tolerance)


angles = st.floats(-180, 180)


@settings(max_examples=6)
@given(turn=st.tuples(angles, angles, angles), slope=st.floats(0.1, 3), start=st.sampled_from([-7.5, 0.0, 1024.0]))
def test_grid_and_values_are_those_of_simpleitk(
    turn: tuple[float, float, float], slope: float, start: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rotation = Rigid.from_parameters(torch.tensor([0, 0, 0, *turn]).double(), torch.zeros(3).double()).rotation
    folder = tmp_path_factory.mktemp("series")
    orientation = [*rotation[:, 0].tolist(), *rotation[:, 1].tolist()]
    write_series(folder, VOXELS, orientation=orientation, RescaleSlope=f"{slope:.8f}", RescaleIntercept=start)
    assert_equal_to_itk(folder)


EQUAL = (
    "generic/anatomical/001", "generic/anatomical/002_non_isotropic", "generic/compressed/001",
    "generic/compressed_j2k/001", "generic/compressed_jpeg/001", "generic/compressed_jpegls/001",
    "generic/compressed_rle/001", "ge/anatomical/001", "hitachi/anatomical/001", "philips_enhanced/anatomical/001",
    "siemens_multiframe/anatomical/001", "failing/slicecount/001",
)  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_real_series_are_as_simpleitk_and_their_nifti_have_them(name: str, shared_data: Path) -> None:
    folder = shared_data / "dicom" / "series" / name
    assert_equal_to_itk(folder)
    image = read_volume(folder)
    nifti = nibabel.load(folder.with_name(f"{folder.name}_ground_truth.nii.gz"))
    values = np.asarray(nifti.dataobj).reshape(nifti.shape[:3])
    to_nifti = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ nifti.affine) @ image.grid.voxel_to_physical().numpy()
    index = image.grid.points_voxel().numpy() @ to_nifti[:3, :3].T + to_nifti[:3, 3]
    whole = np.rint(index).astype(int)
    assert np.abs(index - whole).max() < 0.01  # of a voxel: the NIfTI files round
    assert np.allclose(values[tuple(np.moveaxis(whole, -1, 0))], image.voxels, atol=1e-3)


def test_real_series_with_a_tilt_and_a_missing_slice_lies_where_its_nifti_does(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "series" / "failing" / "sliceincrement" / "002"
    with pytest.warns(InputWarning) as caught:
        image = read_volume(folder)
    said = " ".join(str(one.message) for one in caught)
    assert "CT series 3: the slices are 0.75 to 1.5 mm apart, usually 0.75 mm: 1 missing slice was interpolated" in said
    assert "15.5 degrees from perpendicular" in said
    nifti = sitk.ReadImage(str(folder.with_name("002_ground_truth.nii.gz")), sitk.sitkFloat32)
    assert image.voxels.shape == sitk.GetArrayFromImage(nifti).shape
    middle = image.grid.center_mm().tolist()
    expected = nifti.TransformPhysicalPointToContinuousIndex(middle)
    assert np.allclose(expected, (np.array(nifti.GetSize()) - 1) / 2, atol=0.6)  # the same place, to half a voxel


REAL_REFUSALS = {
    "failing/notavolume/001": "4 slices of different acquisitions lie at 1 place, expected one at each: not one volume",
    "failing/sliceorientation/001": "the slices lie in 2 directions, as those of a localizer do",
    "generic/rgb/001": r"the slices are colour pictures \(RGB\), expected one value in a pixel",
    "ge/anatomical/001_single_slice": r"size is \(256, 256, 1\) voxels, expected 2 or more",
}


@pytest.mark.filterwarnings("ignore:MR series 4. the header gives no thickness")
@pytest.mark.parametrize(("name", "message"), REAL_REFUSALS.items(), ids=REAL_REFUSALS)
def test_real_series_that_are_no_volume_are_refused_with_the_reason(name: str, message: str, shared_data: Path) -> None:
    refused(shared_data / "dicom" / "series" / name, message)


def ramp(grid_points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values that are linear in the patient: trilinear interpolation keeps them."""
    return 100 + grid_points @ np.array([1.0, -0.7, 1.3])


def write_ramp(folder: Path, depths: list[float], shear: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
    y, x = np.meshgrid(np.arange(12), np.arange(10), indexing="ij")
    slices = []
    for depth in depths:
        origin = np.array(ORIGIN) + depth * (np.array([0, 0, 1.0]) + shear)
        points = np.stack((x * SPACING[1], y * SPACING[0], 0 * x), -1) + origin
        slices.append(np.rint(ramp(points) * 100))
    write_series(
        folder, np.stack(slices).astype(np.int16), depths=depths, shear=shear, RescaleSlope=0.01, RescaleIntercept=0
    )


RESAMPLED: dict[str, tuple[list[float], tuple[float, float, float], str]] = {
    "a tilted gantry": ([0, 2, 4, 6, 8], (0, 0.25, 0), "14.0 degrees from perpendicular"),
    "a missing slice": (
        [0, 2, 4, 8, 10, 12],
        (0, 0, 0),
        "2 to 4 mm apart, usually 2 mm: 1 missing slice was interpolated",
    ),
    "uneven slices": (
        [0, 2, 4.6, 6, 8, 10],
        (0, 0, 0),
        r"1.4 to 2.6 mm apart, usually 2 mm: resampled to 6 slices every 2 mm",
    ),
    "both": ([0, 2, 4, 8, 10, 12], (0, 0.25, 0), "1 missing slice was interpolated"),
}


@pytest.mark.parametrize(("depths", "shear", "message"), RESAMPLED.values(), ids=RESAMPLED)
def test_what_is_resampled_lies_where_it_was(
    depths: list[float], shear: tuple[float, float, float], message: str, tmp_path: Path
) -> None:
    write_ramp(tmp_path / "s", depths, shear)
    with pytest.warns(InputWarning) as caught:
        image = read_volume(tmp_path / "s")
    assert message in " ".join(str(one.message) for one in caught)
    expected, found = ramp(image.grid.points_mm().numpy()), image.voxels.numpy()
    right = np.abs(found - expected) < 0.05
    assert right[:, 4:8].all()  # rows that no shear moves out of the field of view
    assert right.mean() > 0.7
    ends = image.grid.corners_mm()[:, 2]
    assert float(ends.min()) == pytest.approx(ORIGIN[2], abs=1e-4)
    assert float(ends.max()) == pytest.approx(ORIGIN[2] + depths[-1], abs=1e-4)


def test_slices_of_rounded_positions_are_even(tmp_path: Path) -> None:
    write_series(tmp_path, VOXELS, depths=[0, 2.49, 5.01, 7.5])
    assert read_grid(tmp_path).spacing_mm == pytest.approx((SPACING[1], SPACING[0], 2.5))


def one(sop_class: str, modality: str, voxels: NDArray[Any] | None, path: Path, **changes: Any) -> Path:
    """Write the only file of a folder."""
    dataset = base(sop_class, modality)
    if voxels is not None:
        set_pixels(dataset, voxels)
    path.parent.mkdir()
    return save(dataset, path, **changes)


def two_echoes(folder: Path) -> None:
    each = [{"EchoTime": 80.0 + 20 * (number % 2)} for number in range(4)]
    write_series(folder, VOXELS, depths=[0, 0, STEP, STEP], each=each)


def of_two_sizes(folder: Path) -> None:
    write_series(folder, VOXELS)
    for path in write_series(folder / "more", VOXELS[:1, :4], depths=[40.0]):
        save(dcmread(path), path, SOPInstanceUID=f"{ROOT}9")


def phases(folder: Path) -> None:
    """Two parts of a complex image at each place of an enhanced image."""
    dataset = enhanced(VOXELS, depths=[0, 0, STEP, STEP])
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        part = ("MAGNITUDE", "PHASE")[number % 2]
        group.MRImageFrameTypeSequence = Items([item(ComplexImageComponent=part)])
    folder.mkdir()
    save(dataset, folder / "image")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda folder: folder.mkdir(), "is a folder without a DICOM file"),
    "a localizer": (
        lambda folder: write_series(folder, VOXELS, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        r"MR series 1: is a localizer \(scout\)",
    ),
    "a mosaic": (
        lambda folder: write_series(folder, VOXELS, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]),
        "is a Siemens mosaic, all slices in one picture: convert it with dcm2niix",
    ),
    "echoes": (two_echoes, "holds 2 volumes of 2 slices, expected one: 1: echo time 80.0 ms; 2: echo time 100.0 ms"),
    "phases": (
        phases,
        "1: part of a complex image MAGNITUDE; 2: part of a complex image PHASE; choose one with --series",
    ),
    "no places": (
        lambda folder: write_series(folder, VOXELS, ImagePositionPatient=None, ImageOrientationPatient=None),
        "slices without position and orientation in the header",
    ),
    "a gap": (
        lambda folder: write_series(folder, VOXELS, depths=[0, 2, 4, 30]),
        "the slices are 2 to 26 mm apart, usually 2 mm: slices are missing",
    ),
    "many missing": (
        lambda folder: write_series(folder, np.repeat(VOXELS, 2, 0), depths=[0, 2, 4, 6, 8, 12, 16, 22]),
        "missing",
    ),
    "slices beside one another": (
        lambda folder: write_series(
            folder, VOXELS, each=[{"ImagePositionPatient": [9.0 * (n % 2), 0, n]} for n in range(4)]
        ),
        "shift sideways by up to",
    ),
    "two sizes": (of_two_sizes, "the slices differ in size, expected 5 x 6 pixels of all"),
    "two pixel spacings": (
        lambda folder: write_series(folder, VOXELS, each=[{"PixelSpacing": [1, 1 + n % 2]} for n in range(4)]),
        "the pixel spacing is not positive or differs",
    ),
    "a bent slice": (
        lambda folder: write_series(folder, VOXELS, ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0]),
        "not perpendicular unit vectors",
    ),
    "an ultrasound clip": (
        lambda folder: one(ULTRASOUND, "US", VOXELS.view(np.uint16), folder / "clip", NumberOfFrames=4),
        "US series 1: is ultrasound without the standard geometry.*export the volume as Enhanced US Volume",
    ),
    "a radiograph": (
        lambda folder: one("1.2.840.10008.5.1.4.1.1.1", "CR", VOXELS[0], folder / "x"),
        "is a CR picture, expected the slices of a 3-D scan",
    ),
    "colours": (
        lambda folder: write_series(folder, VOXELS, PhotometricInterpretation="YBR_FULL"),
        r"the slices are colour pictures \(YBR\)",
    ),
    "too few pixels": (
        lambda folder: write_series(folder, VOXELS, PixelData=b"\0" * 10),
        "the pixels of the DICOM file are damaged or cut off",
    ),
    "no pixels": (lambda folder: write_series(folder, VOXELS, PixelData=None), "damaged or cut off"),
    "impossible bits": (lambda folder: write_series(folder, VOXELS, BitsStored=40), "40 of 16 bits in a pixel"),
    "a report": (
        lambda folder: one("1.2.840.10008.5.1.4.1.1.88.11", "SR", None, folder / "report"),
        "the DICOM files here hold no image",
    ),
    "far too large": (
        lambda folder: write_series(folder, VOXELS, Rows=60_000, Columns=60_000),
        r"\(60000, 60000, 4\) voxels need .* over the limit",
    ),
    "constant": (lambda folder: write_series(folder, VOXELS * 0), "every voxel is 0"),
}


@pytest.mark.parametrize(("write", "message"), BAD.values(), ids=BAD)
def test_what_is_no_volume_is_refused_by_name(write: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write(tmp_path / "in")
    refused(tmp_path / "in", message)


def several(folder: Path) -> None:
    for number, words in ((2, "T2 TSE tra Mustermann"), (7, "t2 tse sag 29.02.2024"), (9, "DWI PID4711")):
        write_series(folder / str(number), VOXELS, series=number, SeriesDescription=words)
    (folder / "readme.txt").write_text("not DICOM")


def test_several_series_are_listed_without_identity_and_chosen(tmp_path: Path) -> None:
    several(tmp_path)
    text = refused(tmp_path, "holds 3 series, expected one")
    for line in (
        "2: MR 'T2 TSE tra ***', 4 slices of 5 x 6",
        "7: MR 't2 tse sag ***'",
        "9: MR 'DWI ***'",
        "--series NUMBER",
    ):
        assert line in text
    for wanted, number in (("7", 7), (9, 9), (f"{ROOT}3.2", 2), ("SAG", 7), ("dwi", 9)):
        assert read_image(tmp_path, series=wanted).name == f"MR series {number}"
    refused(tmp_path, "'t2' fits 2 series", series="t2")
    refused(tmp_path, "'4' fits no series", series=4)
    assert f"{ROOT}99" not in refused(tmp_path, "the UID fits no series", series=f"{ROOT}99")
    with pytest.raises(ImageError, match=r"scan\.nii: no such file"):
        read_image(tmp_path / "scan.nii", series="1")


def test_series_with_one_number_are_counted(tmp_path: Path) -> None:
    write_series(tmp_path / "a", VOXELS, series=5, SeriesDescription="one")
    write_series(tmp_path / "b", VOXELS, series=5, SeriesDescription="two", SeriesInstanceUID=f"{ROOT}3.99")
    assert "1: MR 'one'" in refused(tmp_path, "2: MR 'two'")
    assert read_image(tmp_path, series="2").name == "MR series 5"


def test_one_file_stands_for_its_series_whatever_its_name(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "s", VOXELS)
    for path in write_series(tmp_path / "t", VOXELS[:2], series=8):
        path.rename(tmp_path / "s" / f"other-{path.name}")
    assert all(path.suffix == "" for path in paths)
    for path in paths[1], paths[3]:
        assert np.array_equal(read_image(path).voxels, VOXELS.astype(np.float32))


def test_files_without_a_preamble_are_read(tmp_path: Path) -> None:
    for path in write_series(tmp_path / "s", VOXELS):
        content = path.read_bytes()
        meta = int.from_bytes(content[140:144], "little")
        path.write_bytes(content[144 + meta :])
    assert np.array_equal(read_image(tmp_path / "s").voxels, VOXELS.astype(np.float32))


def test_copies_and_localizers_among_the_slices_are_left_out(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "s", VOXELS)
    (tmp_path / "s" / "copy").write_bytes(paths[0].read_bytes())
    scout = dcmread(paths[0])
    save(scout, tmp_path / "s" / "scout", SOPInstanceUID=f"{ROOT}8", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.warns(InputWarning, match="1 localizers among its slices were left out"):
        image = read_image(tmp_path / "s")
    assert np.array_equal(image.voxels, VOXELS.astype(np.float32))


def test_links_and_a_dicomdir_lead_nowhere_else(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    write_series(inside, VOXELS)
    for path in write_series(outside, VOXELS, series=6):
        (inside / f"link-{path.name}").symlink_to(path)
    (inside / "folder").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    directory = save(base("1.2.840.10008.1.3.10", "OT"), inside / "DICOMDIR")
    assert read_image(inside).name == "MR series 1"
    refused(directory, "a DICOMDIR lists files and holds no image: name the folder of the series")


def test_no_more_files_are_looked_at_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "s", VOXELS)
    monkeypatch.setattr(dicom_series, "FILE_LIMIT", 3)
    refused(tmp_path / "s", "holds more than 3 files: name the folder of one series")


def test_low_values_that_are_meant_to_be_bright_are_inverted_but_not_those_of_ct(tmp_path: Path) -> None:
    write_series(tmp_path / "mr", VOXELS, PhotometricInterpretation="MONOCHROME1")
    with pytest.warns(InputWarning, match=r"MR series 1: .*MONOCHROME1.*inverted"):
        assert np.array_equal(read_image(tmp_path / "mr").voxels, -1.0 - VOXELS)
    write_series(
        tmp_path / "u", VOXELS.view(np.uint16), PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11
    )
    with pytest.warns(InputWarning, match="inverted"):
        assert np.array_equal(read_image(tmp_path / "u").voxels, 4095.0 - VOXELS)
    write_series(tmp_path / "ct", VOXELS, sop_class=CT, modality="CT", PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_image(tmp_path / "ct").voxels, VOXELS.astype(np.float32))


def test_bits_above_those_stored_are_dropped_and_signs_kept(tmp_path: Path) -> None:
    values = VOXELS.astype(np.int16) - 2000
    stored = (values.view(np.uint16) & 0x0FFF) | 0x5000  # an overlay in the upper bits
    write_series(tmp_path, stored, BitsStored=12, HighBit=11, PixelRepresentation=1)
    assert np.array_equal(read_image(tmp_path).voxels, values.astype(np.float32))


def test_slices_have_their_own_rescale(tmp_path: Path) -> None:
    each = [{"RescaleSlope": 0.5 * (n + 1), "RescaleIntercept": -n} for n in range(4)]
    write_series(tmp_path, VOXELS, each=each)
    n = np.arange(4)[:, None, None]
    assert np.allclose(read_image(tmp_path).voxels, VOXELS * 0.5 * (n + 1) - n)


def test_an_enhanced_image_is_one_file(tmp_path: Path) -> None:
    dataset = enhanced(VOXELS, depths=[7.5, 0, 5, 2.5])
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        scale = item(RescaleSlope=number + 1, RescaleIntercept=0, RescaleType="US")
        group.PixelValueTransformationSequence = Items([scale])
    image = read_image(save(dataset, tmp_path / "image"))
    assert np.array_equal(image.voxels, np.stack([VOXELS[1] * 2, VOXELS[3] * 4, VOXELS[2] * 3, VOXELS[0]]))
    assert image.grid.origin_mm == ORIGIN
    assert image.grid.spacing_mm == pytest.approx((SPACING[1], SPACING[0], STEP))


def test_an_enhanced_ultrasound_volume_has_its_own_frame(tmp_path: Path) -> None:
    path = save(enhanced(VOXELS.astype(np.uint8), "Volume"), tmp_path / "us")
    with pytest.warns(InputWarning, match="coordinates are those of the ultrasound volume itself, not of the patient"):
        image = read_image(path)
    assert np.array_equal(image.voxels, VOXELS.astype(np.uint8))
    assert image.grid.spacing_mm == pytest.approx((SPACING[1], SPACING[0], STEP))


def compressed(path: Path, syntax: str, frames: list[bytes]) -> Path:
    dataset = enhanced(VOXELS)
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return save(dataset, path)


def jpeg_ls(voxels: NDArray[Any]) -> list[bytes]:
    import jpeg_ls

    return [bytes(jpeg_ls.encode_array(frame.view(np.uint16))) for frame in voxels]


def test_compressed_frames_of_one_file_and_signed_values(tmp_path: Path) -> None:
    path = compressed(tmp_path / "image", "1.2.840.10008.1.2.4.80", jpeg_ls(VOXELS - 2000))
    assert np.array_equal(read_image(path).voxels, VOXELS - 2000.0)


def test_a_compressed_frame_of_another_size_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    frames = jpeg_ls(np.zeros((4, 300, 200), np.int16))
    path = compressed(tmp_path / "image", "1.2.840.10008.1.2.4.80", frames)
    refused(path, "a compressed frame holds 200 x 300 pixels, expected 5 x 6")
    path = compressed(tmp_path / "image", "1.2.840.10008.1.2.4.90", [b"\xff\x4f\xff\x51" + b"\xff" * 40] * 4)
    refused(path, "a compressed frame holds 0 x 0 pixels, expected 5 x 6")


def test_a_missing_decoder_is_named(tmp_path: Path) -> None:
    size = bytes(4) + (5).to_bytes(4, "big") + (6).to_bytes(4, "big") + bytes(8)
    path = compressed(tmp_path / "image", "1.2.840.10008.1.2.4.201", [b"\xff\x4f\xff\x51" + size + bytes(20)] * 4)
    refused(path, "High-Throughput JPEG 2000.*install pylibjpeg and pylibjpeg-openjpeg")
    path = compressed(tmp_path / "image", "1.2.840.10008.1.2.4.100", [b"\0\0\1\xb3" + bytes(20)] * 4)
    refused(path, r"compressed in a way that is not read \(MPEG2.*gdcmconv --raw")


def test_a_file_that_is_deflated_as_a_whole_is_refused(tmp_path: Path) -> None:
    dataset = base("1.2.840.10008.5.1.4.1.1.4", "MR")
    set_pixels(dataset, VOXELS[0])
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    refused(save(dataset, tmp_path / "image"), "is deflated as a whole")


@settings(max_examples=30)
@given(data=st.data())
def test_damaged_files_are_refused_or_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = save(enhanced(VOXELS), tmp_path_factory.mktemp("damage") / "image")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 400]))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        said = reading(path)
    assert not [word for word in IDENTITY if word in said]


def reading(path: Path) -> str:
    """Read a file that may be damaged; return the error, which must be of the kind that a user can mend."""
    try:
        read_volume(path, memory_limit_bytes=10_000_000)
    except ImageError as error:
        return str(error)
    return ""


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    write_series(tmp_path / "s", VOXELS)
    os.mkfifo(tmp_path / "s" / "pipe")
    assert read_image(tmp_path / "s").voxels.shape == VOXELS.shape


SEVERAL: dict[str, list[dict[str, Any]]] = {
    "b-values": [{"DiffusionBValue": float(b)} for b in (1000, 0, 50)],
    "time points": [{"TemporalPositionIdentifier": n} for n in (3, 1, 2)],
    "trigger times": [{"TriggerTime": t} for t in (400.0, 0.0, 90.0)],
    "acquisitions": [{"AcquisitionNumber": n} for n in (12, 1, 9)],
}


@pytest.mark.parametrize("what", SEVERAL)
def test_each_volume_of_a_series_can_be_chosen(tmp_path: Path, what: str) -> None:
    """Slices of three volumes in turn: in the order of their numbers they are volumes 1, 2 and 3."""
    voxels = np.arange(6 * 6 * 5, dtype=np.int16).reshape(6, 6, 5)
    each = [one | {"ContentTime": f"1015{number:02}"} for number, one in enumerate(SEVERAL[what] * 2)]
    write_series(tmp_path, voxels, depths=[0, 0, 0, STEP, STEP, STEP], each=each, series=4)
    with pytest.raises(
        ImageError, match=f"3 volumes of 2 slices, expected one: 1: {what[:-1]} 0?.*--series SERIES:VOLUME"
    ):
        read_image(tmp_path)
    for number, places in ((1, (1, 4)), (2, (2, 5)), (3, (0, 3))):
        for choice in (f"4:{number}", f":{number}"):
            image = read_image(tmp_path, series=choice)
            assert np.array_equal(image.voxels.numpy(), voxels[list(places)])
            assert image.grid.spacing_mm[2] == pytest.approx(STEP)
    for wrong, error in (("4:4", "got volume 4, expected one of"), ("5:1", "'5' fits no series")):
        with pytest.raises(ImageError, match=error):
            read_image(tmp_path, series=wrong)


def test_two_header_elements_may_tell_volumes_apart(tmp_path: Path) -> None:
    each = [{"EchoTime": te, "TemporalPositionIdentifier": t} for te in (80.0, 20.0) for t in (1, 2) for _ in range(2)]
    voxels = np.arange(8 * 6 * 5, dtype=np.int16).reshape(8, 6, 5)
    write_series(tmp_path, voxels, depths=[0, STEP] * 4, each=each)
    with pytest.raises(ImageError, match=r"3: echo time 80.0 ms, time point 1; 4: echo time 80.0 ms, time point 2"):
        read_image(tmp_path)
    assert np.array_equal(read_image(tmp_path, series=":3").voxels.numpy(), voxels[:2])


def test_a_volume_of_an_enhanced_image_is_chosen(tmp_path: Path) -> None:
    phases(tmp_path / "image")
    assert np.array_equal(read_image(tmp_path / "image", series=":2").voxels.numpy(), VOXELS[1::2])


def test_a_series_of_one_volume_has_no_second(tmp_path: Path) -> None:
    write_series(tmp_path, VOXELS)
    assert np.array_equal(read_image(tmp_path, series=":1").voxels.numpy(), VOXELS)
    with pytest.raises(ImageError, match="volume 2 was asked for"):
        read_image(tmp_path, series=":2")


def test_what_nothing_tells_apart_stays_refused(tmp_path: Path) -> None:
    write_series(tmp_path, VOXELS, depths=[0, 0, STEP, STEP])
    with pytest.raises(ImageError, match="4 slices lie at 2 places"):
        read_image(tmp_path)
