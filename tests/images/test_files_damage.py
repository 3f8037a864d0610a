"""Damaged image files: each is refused by name or read rightly; none ends the process or hangs."""

import bz2
import gzip
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from tests.damage import damaged, edited_lines

from crossalign.errors import ImageError, InputWarning
from crossalign.images import read_grid, read_volume

VALUES = np.random.default_rng(1).integers(-900, 900, (5, 6, 7), dtype=np.int16)


def file_bytes(folder: Path, suffix: str, compressed: bool = True) -> bytes:
    image = sitk.GetImageFromArray(VALUES)
    image.SetOrigin((-12.5, 40.25, 7.75))
    image.SetSpacing((0.8, 1.2, 3.0))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    path = folder / f"sound{suffix}"
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path.read_bytes()


def outcome(path: Path) -> torch.Tensor | None:
    """The voxels, or None where the file is refused; warnings are allowed, long messages are not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", InputWarning)
        try:
            image = read_volume(path, memory_limit_bytes=2**24)
            assert read_grid(path) == image.grid
        except ImageError as error:
            text = str(error)
            assert "\n" not in text
            assert len(text) <= 300
            assert text.isprintable()
            return None
    return image.voxels


@pytest.mark.parametrize(
    ("suffix", "compressed"),
    [(".nii", False), (".nii.gz", True), (".nrrd", True), (".nrrd", False), (".mha", True), (".mha", False)],
)
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, suffix: str, compressed: bool) -> None:
    data = file_bytes(tmp_path, suffix, compressed)
    generator = np.random.default_rng(2)
    refused = 0
    for number, bad in enumerate(damaged(data, generator, 250)):
        path = tmp_path / f"bad{number}{suffix}"
        path.write_bytes(bad)
        voxels = outcome(path)
        refused += voxels is None
        if voxels is not None and suffix == ".nii.gz":  # one checksum over all of it
            assert np.array_equal(voxels.numpy(), VALUES.astype(np.float32))
        path.unlink()
    assert refused > 50


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_an_edited_header_is_refused_or_read(tmp_path: Path, suffix: str) -> None:
    data = file_bytes(tmp_path, suffix, compressed=False)
    header = data[: len(data) - VALUES.nbytes].decode("ascii")
    for number, text in enumerate(edited_lines(header, np.random.default_rng(3), 300)):
        path = tmp_path / f"bad{number}{suffix}"
        path.write_bytes(text.encode("utf-8") + VALUES.tobytes())
        outcome(path)
        path.unlink()


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_a_flipped_bit_in_compressed_voxels_is_always_noticed(tmp_path: Path, suffix: str) -> None:
    data = file_bytes(tmp_path, suffix)
    start = {".mha": data.rfind(b"LOCAL\n") + 6, ".nrrd": data.find(b"\n\n") + 2, ".nii.gz": 0}[suffix]
    generator = np.random.default_rng(4)
    path = tmp_path / f"bad{suffix}"
    for _ in range(200):
        bad = bytearray(data)
        bad[int(generator.integers(start + 10, len(data)))] ^= 1 << int(generator.integers(8))
        path.write_bytes(bad)
        voxels = outcome(path)
        assert voxels is None or np.array_equal(voxels.numpy(), VALUES.astype(np.float32))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_every_truncation_is_refused(tmp_path: Path, suffix: str) -> None:
    data = file_bytes(tmp_path, suffix)
    path = tmp_path / f"cut{suffix}"
    for length in range(0, len(data), 3):
        path.write_bytes(data[:length])
        assert outcome(path) is None


NIFTI_EDITS = {
    "offset of 1e30": (108, "<f", 1e30, "begin at byte 1e"),
    "negative offset": (108, "<f", -352.0, "begin at byte -352"),
    "offset that is no number": (108, "<f", float("nan"), "begin at byte nan"),
    "offset within the header": (108, "<f", 100.0, "begin at byte 100"),
    "offset past the end": (108, "<f", 1e6, "truncated"),
    "no dimensions": (40, "<h", 0, "0 dimensions"),
    "many dimensions": (40, "<h", 300, "300 dimensions"),
    "size of 0": (42, "<h", 0, "sizes are"),
    "negative size": (44, "<h", -5, "sizes are"),
    "large size": (46, "<h", 30000, "limit|truncated"),
    "unknown type": (70, "<h", 77, "type 77"),
    "bits of one in a voxel": (70, "<h", 1, "type 1 "),
    "complex": (70, "<h", 32, "2 values in a voxel"),
    "colour": (70, "<h", 128, "3 values in a voxel"),
    "slope with an infinite intercept": (112, "<2f", (2.0, float("inf")), "intercept inf"),
}


@pytest.mark.parametrize(("place", "kind", "value", "message"), NIFTI_EDITS.values(), ids=NIFTI_EDITS.keys())
def test_a_nifti_header_that_makes_no_sense_is_refused(tmp_path: Path, place, kind, value, message) -> None:
    for suffix in (".nii", ".nii.gz"):
        data = bytearray(file_bytes(tmp_path, ".nii"))
        struct.pack_into(kind, data, place, *(value if isinstance(value, tuple) else (value,)))
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
        with pytest.raises(ImageError, match=message):
            read_volume(path)


def test_a_small_file_that_claims_to_be_large_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 800 800 800\nCompressedData = True\nElementSpacing = 1 1 1\n"
        "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    path = tmp_path / "bomb.mha"
    path.write_bytes(header.encode() + bytes(48_000))
    with pytest.raises(ImageError, match="truncated"):
        read_volume(path, memory_limit_bytes=2**35)
    with pytest.raises(ImageError, match=r"need 17\.2 GiB of memory, over the limit of 4\.0 GiB"):
        read_volume(path, memory_limit_bytes=2**32)


def test_bytes_after_the_voxels_are_told_and_endless_ones_refused(tmp_path: Path) -> None:
    data = file_bytes(tmp_path, ".nii")
    (tmp_path / "long.nii").write_bytes(data + b"12345")
    with pytest.warns(InputWarning, match="holds 5 bytes more than its header says"):
        image = read_volume(tmp_path / "long.nii")
    assert np.array_equal(image.voxels.numpy(), VALUES.astype(np.float32))
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(data + bytes(80 * 1024**2), 1))
    with pytest.raises(ImageError, match="far more than the 420 bytes"):
        read_volume(tmp_path / "bomb.nii.gz")


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 7 6 5\nendian: little\nencoding: {}\n{}\n"
NRRD_PLACE = "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (5,6,7)\n"
MHA = (
    "ObjectType = Image\nNDims = 3\nDimSize = 7 6 5\nElementSpacing = 1 1 2\nOffset = 5 6 7\nElementType = MET_SHORT\n"
)


def test_a_damaged_bzip2_stream_is_noticed(tmp_path: Path) -> None:
    packed = bz2.compress(VALUES.tobytes())
    path = tmp_path / "scan.nrrd"
    path.write_bytes(NRRD.format("bzip2", NRRD_PLACE).encode() + packed)
    assert np.array_equal(read_volume(path).voxels.numpy(), VALUES.astype(np.float32))
    for cut in (packed[:-5], packed[:20] + b"\x55" + packed[21:], packed[:2]):
        path.write_bytes(NRRD.format("bzip2", NRRD_PLACE).encode() + cut)
        with pytest.raises(ImageError, match="damaged or truncated"):
            read_volume(path)


@pytest.mark.parametrize(
    "line",
    ["/etc/passwd", "../secret.raw", "%x%x.raw", "%n", "folder", "fifo", "link.raw", "/proc/self/environ", "", ".",
     "slice%03d.raw 1 5 0", "slice%03d.raw 1 99999999 1", "%s 1 5 1", "%200d 1 5 1", "LIST", "no.raw", "x" * 5000,
     "slice%03d.raw 5 1 1", "slice%03d.raw"],
)  # fmt: skip
def test_a_header_reads_no_file_but_its_own(tmp_path: Path, line: str) -> None:
    import os

    inner = tmp_path / "inner"
    (inner / "folder").mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes())
    (inner / "link.raw").symlink_to(tmp_path / "secret.raw")
    os.mkfifo(inner / "fifo")
    (inner / "a.mhd").write_text(f"{MHA}ElementDataFile = {line}\n")
    (inner / "a.nhdr").write_text(NRRD.format("raw", f"{NRRD_PLACE}data file: {line}"))
    for header in ("a.mhd", "a.nhdr"):
        with pytest.raises(ImageError):
            read_volume(inner / header)


@pytest.mark.parametrize("header", ["a.mha", "a.nrrd"])
def test_one_file_formats_hold_their_own_voxels(tmp_path: Path, header: str) -> None:
    (tmp_path / "beside.raw").write_bytes(VALUES.tobytes())
    (tmp_path / "a.mha").write_text(f"{MHA}ElementDataFile = beside.raw\n")
    (tmp_path / "a.nrrd").write_text(NRRD.format("raw", f"{NRRD_PLACE}data file: beside.raw"))
    with pytest.raises(ImageError, match="expected its own voxels"):
        read_volume(tmp_path / header)


def test_files_that_are_no_regular_files_and_impossible_names_are_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo.nii")
    for path, message in (
        (tmp_path / "fifo.nii", "pipe, socket or device"),
        (Path("/dev/zero"), "pipe, socket or device"),
        (tmp_path / "nul\0.nii", "NUL"),
        (tmp_path / ("n" * 5000 + ".nii"), "cannot be read"),
        (tmp_path, "is a folder"),
    ):
        for read in (read_volume, read_grid):
            with pytest.raises(ImageError, match=message) as caught:
                read(path)
            assert len(str(caught.value)) <= 300
