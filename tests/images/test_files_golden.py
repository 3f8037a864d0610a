"""Reading judged by SimpleITK and nibabel: every type, byte order, encoding and layout of NIfTI, NRRD and MetaImage."""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from crossalign.errors import ImageError
from crossalign.images import Image, read_grid, read_label_map, read_volume

KINDS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
META = ("CHAR", "UCHAR", "SHORT", "USHORT", "INT", "UINT", "LONG_LONG", "ULONG_LONG", "FLOAT", "DOUBLE")
NRRD = ("int8", "uchar", "short", "uint16", "int", "uint", "int64", "uint64", "float", "double")
DIRECTION = np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])
SPACING, ORIGIN = np.array([0.8, 1.2, 3.0]), np.array([-12.5, 40.25, 7.75])


def values(kind: str) -> np.ndarray:
    """Whole numbers, so that they are labels too."""
    drawn = np.random.default_rng(0).integers(0 if kind.startswith("u") else -120, 120, (4, 5, 6))
    return drawn.astype(kind)


def check(path: Path) -> Image:
    """The voxels are ITK's to the bit, and each lies where ITK says it does."""
    image, itk = read_volume(path), sitk.ReadImage(str(path))
    assert np.array_equal(image.voxels.numpy(), sitk.GetArrayFromImage(itk).astype(np.float32))
    for index in ((0, 0, 0), (5, 0, 0), (0, 4, 0), (0, 0, 3), (5, 4, 3)):
        point = image.grid.to_physical(torch.tensor([index], dtype=torch.float64))[0].numpy()
        assert np.abs(point - itk.TransformIndexToPhysicalPoint(index)).max() < 1e-4
    assert read_grid(path) == image.grid
    assert np.array_equal(read_label_map(path, allow_empty=True).labels.numpy(), sitk.GetArrayFromImage(itk))
    return image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_itk_writes(tmp_path: Path, kind: str, suffix: str, compressed: bool) -> None:
    itk = sitk.GetImageFromArray(values(kind))
    itk.SetSpacing(SPACING.tolist())
    itk.SetOrigin(ORIGIN.tolist())
    itk.SetDirection(DIRECTION.ravel().tolist())
    sitk.WriteImage(itk, str(tmp_path / f"scan{suffix}"), useCompression=compressed)
    assert np.array_equal(check(tmp_path / f"scan{suffix}").voxels.numpy(), values(kind).astype(np.float32))


def metaimage(kind: str, target: str, *lines: str) -> bytes:
    fields = [
        "ObjectType = Image", "NDims = 3", f"TransformMatrix = {' '.join(map(str, DIRECTION.T.ravel()))}",
        f"Offset = {' '.join(map(str, ORIGIN))}", f"ElementSpacing = {' '.join(map(str, SPACING))}", "DimSize = 6 5 4",
        *lines, f"ElementType = MET_{META[KINDS.index(kind)]}", f"ElementDataFile = {target}",
    ]  # fmt: skip
    return "\n".join(fields).encode() + b"\n"


def nrrd(kind: str, encoding: str, *lines: str) -> bytes:
    columns = (DIRECTION * SPACING).T
    fields = [
        "NRRD0004", "# a comment", f"type: {NRRD[KINDS.index(kind)]}", "dimension: 3",
        "space: left-posterior-superior", "sizes: 6 5 4",
        "space directions: " + " ".join(f"({','.join(map(str, column))})" for column in columns),
        f"space origin: ({','.join(map(str, ORIGIN))})", f"encoding: {encoding}", "key:=value: 1", *lines, "",
    ]  # fmt: skip
    return "\n".join(fields).encode() + b"\n"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("big", [False, True])
def test_byte_orders(tmp_path: Path, kind: str, big: bool) -> None:
    data = values(kind).astype((">" if big else "<") + kind).tobytes()
    order = f"BinaryDataByteOrderMSB = {big}"
    (tmp_path / "raw.mha").write_bytes(metaimage(kind, "LOCAL", order) + data)
    packed = zlib.compress(data)
    lines = (order, "CompressedData = True", f"CompressedDataSize = {len(packed)}")
    (tmp_path / "packed.mha").write_bytes(metaimage(kind, "LOCAL", *lines) + packed)
    endian = f"endian: {'big' if big else 'little'}"
    (tmp_path / "raw.nrrd").write_bytes(nrrd(kind, "raw", endian) + data)
    (tmp_path / "packed.nrrd").write_bytes(nrrd(kind, "gzip", endian) + gzip.compress(data))
    (tmp_path / "hex.nrrd").write_bytes(nrrd(kind, "hex", endian) + data.hex("\n", 32).encode())
    for name in ("raw.mha", "packed.mha", "raw.nrrd", "packed.nrrd", "hex.nrrd"):
        assert np.array_equal(check(tmp_path / name).voxels.numpy(), values(kind).astype(np.float32)), name


@pytest.mark.parametrize("kind", ["i2", "u8", "f4"])
def test_numbers_as_text(tmp_path: Path, kind: str) -> None:
    text = " ".join(str(value) for value in values(kind).ravel()).encode() + b"\n"
    (tmp_path / "text.nrrd").write_bytes(nrrd(kind, "ascii") + text)
    (tmp_path / "text.mha").write_bytes(metaimage(kind, "LOCAL", "BinaryData = False") + text)
    for name in ("text.nrrd", "text.mha"):
        assert np.array_equal(check(tmp_path / name).voxels.numpy(), values(kind).astype(np.float32))


def test_voxels_beside_the_header(tmp_path: Path) -> None:
    stored = values("i2")
    data = stored.tobytes()
    (tmp_path / "all.raw").write_bytes(data)
    (tmp_path / "later.raw").write_bytes(b"12345678" + data)
    (tmp_path / "all.raw.gz").write_bytes(gzip.compress(data))
    for z, one in enumerate(stored):
        (tmp_path / f"slice{z + 1:03d}.raw").write_bytes(one.tobytes())
    names = "\n".join(f"slice{z}.raw" for z in ("001", "002", "003", "004"))
    headers = {
        "a.mhd": metaimage("i2", "all.raw"),
        "b.mhd": metaimage("i2", "later.raw", "HeaderSize = 8"),
        "c.mhd": metaimage("i2", "later.raw", "HeaderSize = -1"),
        "d.mhd": metaimage("i2", "slice%03d.raw 1 4 1"),
        "e.mhd": metaimage("i2", "LIST") + f"{names}\n".encode(),
        "a.nhdr": nrrd("i2", "raw", "endian: little", "data file: all.raw"),
        "b.nhdr": nrrd("i2", "raw", "endian: little", "byte skip: 8", "data file: later.raw"),
        "c.nhdr": nrrd("i2", "raw", "endian: little", "byte skip: -1", "data file: later.raw"),
        "d.nhdr": nrrd("i2", "raw", "endian: little", "data file: slice%03d.raw 1 4 1"),
        "e.nhdr": nrrd("i2", "raw", "endian: little", f"data file: LIST\n{names}").rstrip(b"\n") + b"\n",
        "f.nhdr": nrrd("i2", "gzip", "endian: little", "data file: all.raw.gz"),
    }
    for name, header in headers.items():
        (tmp_path / name).write_bytes(header)
        assert np.array_equal(check(tmp_path / name).voxels.numpy(), stored.astype(np.float32)), name


@pytest.mark.parametrize("count", [3, 5])
def test_a_list_of_slices_that_does_not_fit_is_refused(tmp_path: Path, count: int) -> None:
    for z in range(1, 7):
        (tmp_path / f"s{z}.raw").write_bytes(values("i2")[0].tobytes())
    names = "\n".join(f"s{z}.raw" for z in range(1, count + 1))
    (tmp_path / "a.mhd").write_bytes(metaimage("i2", "LIST") + f"{names}\n".encode())
    (tmp_path / "b.mhd").write_bytes(metaimage("i2", f"s%d.raw 1 {count} 1"))
    (tmp_path / "a.nhdr").write_bytes(
        nrrd("i2", "raw", "endian: little", f"data file: LIST\n{names}").rstrip(b"\n") + b"\n"
    )
    (tmp_path / "b.nhdr").write_bytes(nrrd("i2", "raw", "endian: little", f"data file: s%d.raw 1 {count} 1"))
    for name in ("a.mhd", "b.mhd", "a.nhdr", "b.nhdr"):
        with pytest.raises(ImageError, match=f"names {count} data files, expected 4"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("slope", [None, (0.0034294503, 0.0), (2.5, -7.25)])
def test_nifti_with_a_scale(tmp_path: Path, kind: str, order: str, slope: tuple[float, float] | None) -> None:
    affine = np.diag([-0.8, 1.2, 3.0, 1.0])
    affine[:3, 3] = ORIGIN
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(order + kind)
    scaled = nib.Nifti1Image(values(kind).T, affine, header)
    scaled.header.set_xyzt_units("mm")
    scaled.set_qform(affine, 1)
    scaled.set_sform(affine, 1)
    if slope is not None:
        scaled.header.set_slope_inter(*slope)
    stored = scaled.header.copy()
    stored["vox_offset"] = 352
    if slope is None:
        stored["scl_slope"], stored["scl_inter"] = np.nan, np.nan
    path = tmp_path / "scan.nii"
    path.write_bytes(stored.binaryblock + bytes(4) + values(kind).astype(order + kind).tobytes())
    image, itk = read_volume(path), sitk.ReadImage(str(path))
    assert np.array_equal(image.voxels.numpy(), sitk.GetArrayFromImage(itk).astype(np.float32))
    assert np.array_equal(image.voxels.numpy(), nib.Nifti1Image.from_filename(path).get_fdata().astype(np.float32).T)


def test_real_scans_are_read_as_itk_reads_them_and_without_a_warning(shared_data: Path) -> None:
    paths = [
        *sorted((shared_data / "brain").glob("*_2mm.nii.gz")),
        *sorted((shared_data / "brain").glob("spm12_*.nii.gz")),
        *sorted((shared_data / "mrus_open" / "open00").glob("*.nii.gz")),
        *sorted((shared_data / "sts" / "sts001").glob("pet*.nii.gz")),
    ]
    assert len(paths) >= 10
    for path in paths:
        image, itk = read_volume(path), sitk.ReadImage(str(path))
        assert np.array_equal(image.voxels.numpy(), sitk.GetArrayFromImage(itk).astype(np.float32)), path
        last = [size - 1 for size in itk.GetSize()]
        point = image.grid.to_physical(torch.tensor([last], dtype=torch.float64))[0].numpy()
        assert np.abs(point - itk.TransformIndexToPhysicalPoint(last)).max() < 1e-4, path
