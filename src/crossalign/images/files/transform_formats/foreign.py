"""Files that are no transform that is read: what each is, by its content, and how to make one of it that is."""

from __future__ import annotations

import re
from collections.abc import Callable

from crossalign.images.files.points import is_fcsv
from crossalign.input import finite_number

READ = "transforms are read from ITK's files (.tfm, .txt, .mat, .h5) and from linear ones of MINC (.xfm)"
BARE = (
    "a bare matrix, which does not say in which frame and direction it maps (FSL's maps scaled voxels, others RAS or "
    "LPS points): make an ITK file of it with 'crossalign transform convert IN OUT.tfm' and --from matrix-lps, "
    "--from matrix-ras or --from fsl"
)
GZIP = b"\x1f\x8b"
NIFTI_SIZES = (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # the first number of a header

_Kind = tuple[Callable[[bytes, str], bool], str]


def reason_not_read(start: bytes) -> str:
    """Say what a file seems to be, by its first bytes, and what to do."""
    text = start.decode("latin-1").lstrip("\ufeff\xef\xbb\xbf \t\r\n")
    return next((reason for is_kind, reason in _KINDS if is_kind(start, text)), f"not a transform file: {READ}")


def _starts(*starts: str) -> Callable[[bytes, str], bool]:
    return lambda _start, text: text.startswith(starts)


def _is_matrix(_start: bytes, text: str) -> bool:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    words = " ".join(lines).replace(",", " ").split()
    return len(words) in (9, 12, 16) and all(finite_number(word) is not None for word in words)


def _is_points(_start: bytes, text: str) -> bool:
    header = [cell.strip().lower() for cell in text.partition("\n")[0].split(",")]
    return is_fcsv(text) or {"x", "y", "z"} <= set(header) or '"markups"' in text


def _is_image(start: bytes, text: str) -> bool:
    return start.startswith((GZIP, *NIFTI_SIZES)) or text.startswith(("NRRD", "ObjectType", "NDims"))


def _is_freesurfer(_start: bytes, text: str) -> bool:
    return re.search(r"^nxforms\s*=", text, re.MULTILINE) is not None


_KINDS: tuple[_Kind, ...] = (
    (lambda start, _text: not start.strip(), f"is empty: {READ}"),
    (_is_points, "holds points, not a transform: name the transform first, then the points"),
    (_is_image, "is an image, not a rigid transform; a field of displacements is a deformation"),
    (lambda start, _text: start.startswith(b"MATLAB 5"), f"a MATLAB file that is not ITK's: {READ}"),
    (
        _is_freesurfer,
        "a transform of FreeSurfer: convert it with 'crossalign transform convert IN.lta OUT.tfm'",
    ),
    (
        lambda _start, text: re.match(r"(//[^\n]*\n\s*)*\(\w+ ", text) is not None,
        'parameters of elastix: let elastix write an ITK file with (ITKTransformOutputFileNameExtension "tfm")',
    ),
    (_starts("<"), "XML, such as a scene of 3D Slicer: save the transform itself there, as .tfm or .h5"),
    (_starts("{", "["), f"JSON, not a transform file: {READ}"),
    (_is_matrix, BARE),
)
