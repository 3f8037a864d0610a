"""Which format a file is in, by its first bytes; its name is only checked against them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crossalign.errors import ImageError
from crossalign.images.files.formats.header import Header
from crossalign.images.files.formats.metaimage import is_metaimage, read_metaimage_header
from crossalign.images.files.formats.nifti import HEADER_BYTES, nifti_kind, read_nifti_header
from crossalign.images.files.formats.nrrd import is_nrrd, read_nrrd_header
from crossalign.images.files.formats.voxels import head
from crossalign.input import excerpt

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
HEAD_BYTES = 1024
NIFTI_MAGIC = (b"n+1", b"n+2", b"ni1", b"ni2")
CONVERT = "convert it to NIfTI, NRRD or MetaImage"
OTHERS = (
    (b"\x89HDF", 0, "HDF5 (MINC)", CONVERT),
    (b"CDF", 0, "MINC or NetCDF", "convert it to NIfTI, for example with mnc2nii"),
    (b"\x00\x00\x00\x01", 0, "FreeSurfer's MGH", "convert it to NIfTI, for example with mri_convert"),
    (b"\x89PNG", 0, "a PNG picture", "give a 3-D image"),
    (b"\xff\xd8\xff", 0, "a JPEG picture", "give a 3-D image"),
    (b"II*\x00", 0, "TIFF", CONVERT),
    (b"MM\x00*", 0, "TIFF", CONVERT),
    (b"PK\x03\x04", 0, "a zip archive", "unpack it first"),
    (b"\xfd7zXZ", 0, "packed with xz", "unpack it first"),
    (b"BZh", 0, "packed with bzip2", "unpack it first"),
    (b"# vtk", 0, "VTK", CONVERT),
    (b"DICM", 128, "a packed DICOM file", "unpack it first"),
)


def read_header(path: Path) -> Header:
    """Recognise a file and parse its header; raises ImageError, with what to do, where that cannot be done."""
    first, is_gzip = head(path, HEAD_BYTES)
    name = excerpt(path.name, 255)
    suffix = _suffix(path)
    if not first:
        raise ImageError(f"{name}: not a readable image: the file is empty: copy it again")
    nifti = nifti_kind(first)
    if nifti is not None and (nifti[2] in NIFTI_MAGIC or len(first) < nifti[0]):
        header = read_nifti_header(first[:HEADER_BYTES], path, name, is_gzip)
        expected = (".nii.gz",) if is_gzip else (".nii",)
        if nifti[2].startswith(b"ni"):
            expected = (".hdr.gz",) if is_gzip else (".hdr",)
        return _checked_name(
            header, suffix, expected, "gzip-compressed NIfTI" if is_gzip else "NIfTI without compression"
        )
    if is_gzip and (is_nrrd(first) or is_metaimage(first)):
        raise ImageError(f"{name}: is gzip-compressed as a whole: unpack it first (gunzip), then give the file inside")
    if is_nrrd(first):
        return _checked_name(read_nrrd_header(path, name), suffix, (".nrrd", ".nhdr"), "NRRD")
    if is_metaimage(first):
        return _checked_name(read_metaimage_header(path, name), suffix, (".mha", ".mhd"), "MetaImage")
    raise _unreadable(first, name, suffix, analyze=nifti is not None)


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in (*SUFFIXES, ".hdr.gz") if name.endswith(suffix)), path.suffix.lower())


def _checked_name(header: Header, suffix: str, expected: tuple[str, ...], content: str) -> Header:
    if suffix in expected:
        return header
    ending = excerpt(suffix or "nothing", 20)
    note = f"the name ends in {ending} but the file is {content}: read as that; name it {expected[0]}"
    return replace(header, notes=(note, *header.notes))


def _unreadable(first: bytes, name: str, suffix: str, analyze: bool) -> ImageError:
    if analyze:
        return ImageError(
            f"{name}: is in the ANALYZE format, which does not say which side is left: not a readable image; convert "
            "it to NIfTI with a tool that knows where it came from"
        )
    for magic, place, kind, advice in OTHERS:
        if first[place : place + len(magic)] == magic:
            return ImageError(f"{name}: is {kind}: not a readable image here; {advice}")
    if suffix in (".img", ".raw"):
        return ImageError(
            f"{name}: holds voxels without a header, not an image of its own: give the header (.hdr, .mhd, .nhdr)"
        )
    return ImageError(
        f"{name}: not a readable image by its content, expected one of {', '.join(SUFFIXES)}: is it damaged?"
    )
