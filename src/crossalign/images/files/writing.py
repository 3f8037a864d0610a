"""Silence for the C libraries below SimpleITK, which print lines of their own before they report an error."""

import gzip
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from crossalign.errors import OutputError
from crossalign.output import reason, write_text

_LOCK = threading.Lock()


@contextmanager
def quiet_native() -> Iterator[None]:
    """Drop what is written to file descriptor 2 (MetaIO's and ITK's chatter); their errors are raised all the same."""
    with _LOCK:
        try:
            saved = os.dup(2)
        except OSError:  # no standard error at all
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)


@contextmanager
def native_path(path: Path) -> Iterator[str]:
    """Give a name of a file that ITK can take: its own, or that of a link where its own is not UTF-8.

    On a name that is not UTF-8, as an old disk may hold, SimpleITK ends the process.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="crossalign-") as folder:
            link = Path(folder) / path.name.encode("ascii", "replace").decode().replace("?", "_")
            link.symlink_to(path.absolute())
            yield str(link)
        return
    yield str(path)


NOTES = "ITK_FileNotes"  # ITK's name of the text in a NIfTI header's `descrip`
NOTE_LENGTH = 79
NIFTI_HEADER_BYTES = 352  # as nibabel writes it, without extensions
SCANNER = 1  # the NIfTI code of coordinates in the scanner's frame, as ITK writes it
COMPRESSION = 6
RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0])
ROUNDING, TURN_ROUNDING = 1e-4, 5e-3  # of NIfTI's single precision; a half turn's quaternion loses most


def write_sitk(image: sitk.Image, path: Path) -> None:
    """Write a 3-D scalar image in the format of the path's suffix and check it; raises OutputError.

    `path` is a temporary one of `whole_file` or `whole_files`, which moves it into place afterwards.
    """
    try:
        if _is_nifti(path):
            _write_nifti(image, path)
        else:
            _write_itk(image, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error
    _check(image, path)


def write_affine_text(affine: sitk.AffineTransform, path: Path) -> None:
    """Write a transform as ITK's text, every digit kept; raises OutputError, which ITK's own writer does not.

    `path` is a temporary one, as in `write_sitk`.
    """
    parameters, center = (_numbers(values) for values in (affine.GetParameters(), affine.GetFixedParameters()))
    lines = ("#Insight Transform File V1.0", "#Transform 0", "Transform: AffineTransform_double_3_3")
    write_text("\n".join([*lines, f"Parameters: {parameters}", f"FixedParameters: {center}", ""]), path)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(repr(value).removesuffix(".0") for value in values)


def _write_nifti(image: sitk.Image, path: Path) -> None:
    import nibabel as nib  # a quarter of a second that only writing should cost

    voxels = sitk.GetArrayViewFromImage(image).T  # x first, as NIfTI has it
    nifti = nib.Nifti1Image(voxels, _affine(image), dtype=voxels.dtype)
    for set_form in (nifti.set_qform, nifti.set_sform):
        set_form(nifti.affine, SCANNER)
    nifti.header.set_xyzt_units("mm", "sec")
    if image.HasMetaDataKey(NOTES):
        nifti.header["descrip"] = image.GetMetaData(NOTES).encode("ascii", "replace")[:NOTE_LENGTH]
    with path.open("wb") as file:
        if path.name.endswith(".gz"):
            # No name and no time in the stream: the same image is the same bytes.
            with gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as stream:
                nifti.to_stream(stream)
        else:
            nifti.to_stream(file)


def _affine(image: sitk.Image) -> Any:
    """Return the 4 x 4 matrix from voxels (x, y, z) to millimetres, RAS."""
    affine = np.eye(4)
    axes = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = RAS_OF_LPS @ axes @ np.diag(image.GetSpacing())
    affine[:3, 3] = RAS_OF_LPS @ np.array(image.GetOrigin())
    return affine


def _write_itk(image: sitk.Image, path: Path) -> None:
    try:
        with quiet_native(), native_path(path) as name:
            sitk.WriteImage(image, name, useCompression=True)
    except RuntimeError as error:
        _find_disk_error(path, image)
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


def _find_disk_error(path: Path, image: sitk.Image) -> None:
    """Write as many bytes as the image has: ITK does not say why it failed, Python's OSError does."""
    chunk = bytes(1 << 20)
    left = image.GetNumberOfPixels() * image.GetSizeOfPixelComponent() + len(chunk)
    with path.open("wb") as file:
        for _ in range(0, left, len(chunk)):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _check(image: sitk.Image, path: Path) -> None:
    """Raise OutputError where the file does not hold the image."""
    damaged = OutputError(f"{path}: what was written does not read back as it should: is the disk full or damaged?")
    try:
        found: Any = _header(path) if _is_nifti(path) else _whole(path)
        if found.GetSize() != image.GetSize() or found.GetPixelID() != image.GetPixelID():
            raise damaged
        if not _same_place(found, image):
            raise damaged
        slices = iter(_voxels(image))
        if _is_nifti(path):
            same = _holds_slices(path, slices)
        else:
            same = all(one.tobytes() == other.tobytes() for one, other in zip(_voxels(found), slices, strict=True))
    except (RuntimeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged from error
    if not same:
        raise damaged


def _voxels(image: sitk.Image) -> NDArray[Any]:
    return sitk.GetArrayViewFromImage(image)


def _is_nifti(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz"))


def _header(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    with quiet_native(), native_path(path) as name:
        reader.SetFileName(name)
        reader.ReadImageInformation()
    return reader


def _whole(path: Path) -> sitk.Image:
    with quiet_native(), native_path(path) as name:
        return sitk.ReadImage(name)


def _holds_slices(path: Path, slices: Iterator[NDArray[Any]]) -> bool:
    """Say whether a NIfTI file holds these slices and nothing else; read slice by slice, ITK takes 8 bytes a voxel."""
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as stream:
        stream.read(NIFTI_HEADER_BYTES)
        same = all(stream.read(one.nbytes) == one.tobytes() for one in slices)
        return same and not stream.read(1)  # at the end gzip compares its checksum


def _same_place(found: sitk.Image | sitk.ImageFileReader, image: sitk.Image) -> bool:
    return (
        np.allclose(found.GetSpacing(), image.GetSpacing(), rtol=ROUNDING)
        and np.allclose(found.GetOrigin(), image.GetOrigin(), rtol=ROUNDING, atol=1e-3)
        and np.allclose(found.GetDirection(), image.GetDirection(), atol=TURN_ROUNDING)
    )
