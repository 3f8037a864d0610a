"""Image files, judged by SimpleITK itself: nothing here trusts our own reading of a direction matrix."""

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from crossalign.errors import ImageError, OutputError
from crossalign.geometry import Grid, Rigid
from crossalign.images import (
    Image,
    LabelMap,
    check_image_output,
    read_grid,
    read_image,
    read_label_map,
    write_image,
    write_label_map,
)

PLAIN = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
FLIPPED = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
PERMUTED = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
FORMATS = (".nii", ".nii.gz", ".nrrd", ".mha")


def oblique() -> tuple[tuple[float, float, float], ...]:
    rotation = Rigid.from_parameters(torch.tensor([0, 0, 0, 20.0, -35, 50]).double(), torch.zeros(3).double()).rotation
    return tuple(tuple(row) for row in rotation.tolist())


DIRECTIONS = {"plain": PLAIN, "flipped": FLIPPED, "permuted": PERMUTED, "oblique": oblique()}


def some_image(direction=PLAIN, shape=(5, 6, 7)) -> Image:
    voxels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return Image(voxels, Grid(shape, (0.8, 1.2, 3.1), (-12.5, 40.25, 7.75), direction), "scan")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
def test_an_image_comes_back_as_it_was(tmp_path: Path, suffix: str, direction) -> None:
    image = some_image(direction)
    write_image(image, tmp_path / f"scan{suffix}")
    again = read_image(tmp_path / f"scan{suffix}")
    assert torch.equal(again.voxels, image.voxels)
    assert again.grid.agrees_with(image.grid, tolerance_mm=1e-4)
    assert again.name == f"scan{suffix}"
    assert read_grid(tmp_path / f"scan{suffix}") == again.grid
    assert [path.name for path in tmp_path.iterdir()] == [f"scan{suffix}"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
def test_simpleitk_finds_each_voxel_where_we_say_it_is(tmp_path: Path, suffix: str, direction) -> None:
    image = some_image(direction)
    write_image(image, tmp_path / f"scan{suffix}")
    itk = sitk.ReadImage(str(tmp_path / f"scan{suffix}"))
    grid = read_grid(tmp_path / f"scan{suffix}")
    for index in ((0, 0, 0), (6, 5, 4), (3, 0, 2)):
        point = grid.to_physical(torch.tensor([index], dtype=torch.float64))[0]
        assert np.allclose(itk.TransformIndexToPhysicalPoint(index), point, atol=1e-4)
        assert itk[index] == float(image.voxels[index[2], index[1], index[0]])


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_simpleitk_writes_we_sample_in_the_right_place(tmp_path: Path, suffix: str) -> None:
    # A flipped file read by a sampler that forgets the direction gives zeros everywhere.
    itk = sitk.GetImageFromArray(np.random.default_rng(0).random((12, 11, 10), dtype=np.float32) + 1)
    itk.SetDirection([value for row in FLIPPED for value in row])
    itk.SetOrigin((80.0, 90.0, -20.0))
    itk.SetSpacing((1.5, 1.0, 2.0))
    sitk.WriteImage(itk, str(tmp_path / f"scan{suffix}"))
    image = read_image(tmp_path / f"scan{suffix}")
    middle = tuple(image.grid.center_mm().tolist())
    target = Grid.centered(middle, (6, 6, 6), (1.0, 1.0, 1.0))
    ours = image.resampled(target, fill=0.0).voxels
    frame = sitk.Image(6, 6, 6, sitk.sitkFloat32)
    frame.SetOrigin(target.origin_mm)
    assert float(ours.min()) >= 1
    assert np.allclose(ours, sitk.GetArrayFromImage(sitk.Resample(itk, frame)), atol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("top", "kind"), [(3, np.uint8), (300, np.int16), (-5, np.int16), (70_000, np.int32)])
def test_a_label_map_keeps_its_labels_in_a_small_type(tmp_path: Path, suffix: str, top: int, kind: type) -> None:
    labels = torch.zeros(4, 5, 6, dtype=torch.int64)
    labels[1:3, 2:4, 2:5] = top
    write_label_map(LabelMap(labels, Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))), tmp_path / f"mask{suffix}")
    assert torch.equal(read_label_map(tmp_path / f"mask{suffix}").labels, labels)
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"mask{suffix}"))).dtype == kind


def test_stored_integers_with_a_scale_are_read_as_values(tmp_path: Path) -> None:
    path = tmp_path / "scaled.nii"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(64, dtype=np.int16).reshape(4, 4, 4)), str(path))
    data = bytearray(path.read_bytes())
    data[112:120] = struct.pack("<2f", 0.5, -3.0)  # scl_slope, scl_inter
    path.write_bytes(data)
    assert torch.equal(read_image(path).voxels.flatten(), torch.arange(64) * 0.5 - 3)


def itk_image(array: np.ndarray, is_vector: bool = False) -> sitk.Image:
    return sitk.GetImageFromArray(array, isVector=is_vector)


RAMP = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
BAD_IMAGES = {
    "2-D": (itk_image(RAMP[0]), "2-D, expected 3-D"),
    "4-D": (itk_image(np.stack([RAMP, RAMP])), "4-D, expected 3-D"),
    "RGB": (itk_image(np.stack([RAMP] * 3, axis=-1).astype(np.uint8), is_vector=True), "3 values in a voxel"),
    "complex": (itk_image(RAMP.astype(np.complex64)), "2 values in a voxel"),
    "NaN": (itk_image(np.where(RAMP == 5, np.nan, RAMP)), "1 of 64 voxels are NaN or infinite"),
    "Inf": (itk_image(np.where(RAMP > 60, np.inf, RAMP)), "3 of 64 voxels are NaN or infinite"),
    "too large for float32": (itk_image(RAMP.astype(np.float64) * 1e300), "63 of 64 voxels are .* beyond float32"),
    "constant": (itk_image(np.full_like(RAMP, 7)), "every voxel is 7: a constant image shows nothing"),
    "one slice": (itk_image(RAMP[:1]), "expected 2 or more on each axis: give the whole"),
}


@pytest.mark.parametrize(("itk", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_an_unusable_image_is_refused_by_name(tmp_path: Path, itk: sitk.Image, message: str) -> None:
    sitk.WriteImage(itk, str(tmp_path / "bad.nrrd"))
    with pytest.raises(ImageError, match=message) as caught:
        read_image(tmp_path / "bad.nrrd")
    assert "bad.nrrd" in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_nan_and_inf_are_noticed_in_every_format(tmp_path: Path, suffix: str, value: float, kind: type) -> None:
    # ITK's NIfTI reader turns them into 0 and says nothing.
    sitk.WriteImage(itk_image(np.where(RAMP == 5, value, RAMP).astype(kind)), str(tmp_path / f"bad{suffix}"))
    for read in (read_image, read_label_map):
        with pytest.raises(ImageError, match=r"bad.*NaN"):
            read(tmp_path / f"bad{suffix}")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6, 0.97])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float, capfd) -> None:
    # ITK reads a truncated NIfTI without a word; MetaIO writes lines of its own to standard error.
    path = tmp_path / f"cut{suffix}"
    write_image(some_image(shape=(20, 20, 20)), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match="cut"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_a_flipped_bit_in_a_compressed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "bits.nii.gz"
    write_image(some_image(shape=(20, 20, 20)), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"bits\.nii\.gz"):
        read_image(path)


@pytest.mark.parametrize("name", ["notes.txt", "junk.nii", "junk.nii.gz", "junk.nrrd", "junk.mha", "junk.mhd"])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"Dear diary, " * 100)
    with pytest.raises(ImageError, match=r"not a.* image"):
        read_image(tmp_path / name)


def test_missing_files_folders_and_impossible_names_are_refused(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "no.nii", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / ("long" * 100 + ".nii"), "cannot be read|no such file"),
    ):
        with pytest.raises(ImageError, match=message):
            read_image(path)


@pytest.mark.parametrize("size", [(30_000, 30_000, 3_000), (32_767, 32_767, 32_767)])
def test_a_giant_header_without_data_is_refused_before_anything_is_allocated(tmp_path: Path, size) -> None:
    path = tmp_path / "giant.nii"
    sitk.WriteImage(itk_image(RAMP), str(path))
    data = bytearray(path.read_bytes())
    data[42:48] = struct.pack("<3h", *size)
    path.write_bytes(data[:352])
    with pytest.raises(ImageError, match="over the limit"):
        read_image(path)


def test_the_memory_limit_is_the_callers(tmp_path: Path) -> None:
    write_image(some_image(), tmp_path / "scan.nii")
    with pytest.raises(ImageError, match="over the limit"):
        read_image(tmp_path / "scan.nii", memory_limit_bytes=1000)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ElementSpacing = -1 1 1", "spacing"),
        ("ElementSpacing = 0 1 1", "spacing|not a readable"),
        ("ElementSpacing = nan 1 1", "spacing|not a readable"),
        ("TransformMatrix = 1 0 0 0.5 1 0 0 0 1", "orthonormal|not a readable"),
        ("TransformMatrix = nan 0 0 0 1 0 0 0 1", "orthonormal|not a readable"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "bad.raw").write_bytes(bytes(range(64)))
    header = (
        f"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\n{line}\nElementType = MET_UCHAR\nElementDataFile = bad.raw\n"
    )
    (tmp_path / "bad.mhd").write_text(header)
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "bad.mhd")


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.zeros_like(RAMP), "empty"), (RAMP / 3, "whole numbers"), (np.where(RAMP > 9, np.nan, RAMP), "NaN")],
)
def test_an_unusable_mask_is_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    sitk.WriteImage(itk_image(values), str(tmp_path / "mask.nii.gz"))
    with pytest.raises(ImageError, match=message):
        read_label_map(tmp_path / "mask.nii.gz")


def test_a_mask_stored_as_float_is_a_mask(tmp_path: Path) -> None:
    sitk.WriteImage(itk_image((RAMP > 9).astype(np.float32)), str(tmp_path / "mask.nii.gz"))
    assert int(read_label_map(tmp_path / "mask.nii.gz").labels.sum()) == 54


def test_outputs_that_cannot_be_written_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "kept.nii").write_text("precious")
    for path, message in (
        (tmp_path / "scan.jpg", "cannot tell the format"),
        (tmp_path / "no" / "scan.nii", "make it first"),
        (tmp_path / "file" / "scan.nii", "make it first"),
        (tmp_path / "kept.nii", "exists already"),
        (tmp_path / ("long" * 100 + ".nii"), "cannot be written"),
    ):
        with pytest.raises(OutputError, match=message):
            write_image(some_image(), path)
        with pytest.raises(OutputError, match=message):
            check_image_output(path)
    assert (tmp_path / "kept.nii").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "kept.nii"]
