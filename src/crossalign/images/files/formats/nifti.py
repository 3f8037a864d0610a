"""Headers of NIfTI-1 and NIfTI-2 files: their three statements of where the voxels lie are checked against each other.

Which one counts follows nibabel: the sform where its code is above 0, else the qform, else pixdim alone.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import ImageError
from crossalign.images.files.formats.header import SKIP_LIMIT_BYTES, Header, Part, check_scalar, spatial_size
from crossalign.images.files.formats.placement import far_apart, farthest_corner, position
from crossalign.input import excerpt

HEADER_BYTES = 540
HEADER_SIZES = (348, 540)  # NIfTI-1 and -2
KINDS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
COMPONENTS = {32: 2, 128: 3, 1792: 2, 2048: 2, 2304: 4}  # complex and colour types
MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 1e-3}
UNIT_NAMES = {1: "metres", 3: "micrometres"}
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
FORM_NAMES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI", 5: "template"}


def nifti_kind(head: bytes) -> tuple[int, str, bytes] | None:
    """Return the header's size (348 or 540), its byte order (< or >) and its magic; None where it has no such size.

    The magic is n+1, n+2, ni1 or ni2; anything else, on a header of 348 bytes, is ANALYZE.
    """
    for order in "<>":
        size = struct.unpack(f"{order}i", head[:4])[0] if len(head) >= 4 else 0
        if size in HEADER_SIZES:
            return size, order, head[344:347] if size == 348 else head[4:7]
    return None


def read_nifti_header(head: bytes, path: Path, name: str, is_gzip: bool) -> Header:
    """Parse the first 540 bytes (decompressed) of a file; raises ImageError."""
    size, order, magic = nifti_kind(head) or (348, "<", b"")
    if len(head) < size:
        raise ImageError(f"{name}: the file is truncated within its header of {size} bytes: copy it again")
    header = _parsed(head[:size], order)
    fields = header.structarr
    dimensions = int(fields["dim"][0])
    if not 1 <= dimensions <= 7:
        raise ImageError(f"{name}: the header counts {dimensions} dimensions, expected 3: the header is damaged")
    voxels = spatial_size(tuple(int(value) for value in fields["dim"][1 : dimensions + 1]), name)
    kind, notes = _kind(header, order, name)
    slope, intercept, scale_notes = _scaling(fields, name)
    affine, geometry_notes = _Geometry(header, voxels, name).read()
    first, data_path = _first_byte(float(fields["vox_offset"]), magic, size, name), path
    if magic.startswith(b"ni"):
        data_path, is_gzip = _pair(path, name)
    part = Part(data_path, 0, "gzip", first) if is_gzip else Part(data_path, first)
    all_notes = (*notes, *scale_notes, *geometry_notes)
    return Header(name, voxels, kind, affine, (part,), slope, intercept, all_notes)


def _parsed(head: bytes, order: str) -> Any:
    """Return nibabel's header, unchecked."""
    from nibabel.nifti1 import Nifti1Header  # a quarter of a second that only reading should cost
    from nibabel.nifti2 import Nifti2Header

    kind: Any = Nifti1Header if len(head) == HEADER_SIZES[0] else Nifti2Header
    return kind(head, endianness=order, check=False)


def _kind(header: Any, order: str, name: str) -> tuple[np.dtype[Any], list[str]]:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    check_scalar(COMPONENTS.get(code, 1), name)
    if code not in KINDS:
        raise ImageError(f"{name}: voxels of NIfTI's type {code} cannot be read: convert it to int16 or float32")
    kind = np.dtype(order + KINDS[code])
    if bits == 8 * kind.itemsize:
        return kind, []
    return kind, [f"the header says {bits} bits in a voxel, but its type is {kind.name}: read as {kind.name}"]


def _scaling(fields: Any, name: str) -> tuple[float, float, list[str]]:
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        if math.isnan(intercept) or (intercept == 0 and not math.isinf(slope)):
            return 1.0, 0.0, []
        note = f"the slope of the values is {slope:g}, which means no scaling: the intercept {intercept:g} is not added"
        return 1.0, 0.0, [note]
    if not math.isfinite(intercept):
        raise ImageError(f"{name}: the values have the slope {slope:g} and the intercept {intercept:g}: mend scl_inter")
    return slope, intercept, []


def _first_byte(offset: float, magic: bytes, header_bytes: int, name: str) -> int:
    if magic.startswith(b"ni") and 0 <= offset <= SKIP_LIMIT_BYTES:
        return int(offset)
    if offset == 0:
        return header_bytes + 4
    if not header_bytes <= offset <= SKIP_LIMIT_BYTES:
        raise ImageError(
            f"{name}: the header says that the voxels begin at byte {offset:g}, expected {header_bytes + 4} or "
            "somewhat more: the header is damaged"
        )
    return int(offset)


def _pair(path: Path, name: str) -> tuple[Path, bool]:
    """Find the voxels of a pair of header and image files."""
    folder, stem = path.parent, path.name.removesuffix(".gz")
    stem = stem[: stem.rfind(".")] if "." in stem else stem
    for suffix in (".img", ".img.gz"):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}", suffix.endswith(".gz")
    raise ImageError(
        f"{name}: is the header of a pair of files, and {excerpt(stem)}.img is not beside it: put it there"
    )


class _Geometry:
    """The three readings of where the voxels lie, and the choice among them."""

    def __init__(self, header: Any, size: tuple[int, int, int], name: str) -> None:
        self.header, self.size, self.name = header, size, name
        self.sform_code, self.qform_code = int(header["sform_code"]), int(header["qform_code"])
        self.notes: list[str] = []
        unit = int(header["xyzt_units"]) & 7
        self.mm_per_unit = MM_PER_UNIT.get(unit, 1.0)
        if unit in UNIT_NAMES:
            self.notes.append(f"the header's unit is {UNIT_NAMES[unit]}: converted to mm")
        elif unit and unit not in MM_PER_UNIT:
            self.notes.append(f"the header's unit of length has the unknown code {unit}: taken as mm")
        self.pixdim = np.asarray(header["pixdim"][1:4], np.float64)

    def read(self) -> tuple[NDArray[np.float64], list[str]]:
        """Return the affine to LPS mm, and notes about it for the user."""
        sform = self._sform() if self.sform_code > 0 else None
        qform = self._qform() if self.qform_code > 0 else None
        if sform is not None:
            self._compare(sform, qform)
            return self._lps(sform), self.notes
        if qform is not None:
            return self._lps(qform), self.notes
        return self._from_pixdim(), self.notes

    def _lps(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        scale = np.diag([self.mm_per_unit] * 3 + [1.0])
        return np.asarray(RAS_TO_LPS @ scale @ affine, np.float64)

    def _sform(self) -> NDArray[np.float64] | None:
        affine = np.asarray(self.header.get_sform(), np.float64)
        matrix = affine[:3, :3]
        lengths = np.linalg.norm(matrix, axis=0) if np.isfinite(affine).all() else np.zeros(3)
        if lengths.all() and abs(np.linalg.det(matrix / lengths)) > 1e-6:
            return affine
        self.notes.append(f"the sform (code {self.sform_code}) is not a matrix of three axes: it is not used")
        return None

    def _qform(self) -> NDArray[np.float64] | None:
        header = self.header.copy()
        fields = header.structarr
        quaternion = np.array([fields[f"quatern_{letter}"] for letter in "bcd"], np.float64)
        offset = np.array([fields[f"qoffset_{letter}"] for letter in "xyz"], np.float64)
        norm = float(np.linalg.norm(quaternion)) if np.isfinite(quaternion).all() else math.inf
        if norm > 1.01 or not np.isfinite(offset).all():
            self.notes.append(f"the qform (code {self.qform_code}) is not a rotation: it is not used")
            return None
        spacing = np.abs(self.pixdim)
        if not (np.isfinite(spacing).all() and spacing.all()):
            if self.sform_code <= 0:
                raise self._bad_spacing()
            return None
        if norm > 1:  # rounding
            for letter, value in zip("bcd", quaternion / norm, strict=True):
                fields[f"quatern_{letter}"] = value
        if (self.pixdim < 0).any() and self.sform_code <= 0:
            self.notes.append(f"pixdim is {_triple(self.pixdim)}: read without the sign")
        fields["pixdim"][1:4] = spacing
        fields["pixdim"][0] = -1 if fields["pixdim"][0] < 0 else 1
        return np.asarray(header.get_qform(), np.float64)

    def _bad_spacing(self) -> ImageError:
        return ImageError(
            f"{self.name}: the spacing is {_triple(self.pixdim)} mm, expected three positive numbers: write the true "
            "spacing into the header (pixdim)"
        )

    def _compare(self, sform: NDArray[np.float64], qform: NDArray[np.float64] | None) -> None:
        """Tell where the sform, which is used, is contradicted by the qform or by pixdim."""
        spacing = np.linalg.norm(sform[:3, :3], axis=0)
        label = f"the sform (code {_form(self.sform_code)})"
        if not (np.isfinite(self.pixdim).all() and self.pixdim.all()):
            self.notes.append(
                f"pixdim is {_triple(self.pixdim)}: the spacing {_triple(spacing)} mm is read from {label}"
            )
        elif qform is None and far_apart(np.diag(spacing), np.diag(np.abs(self.pixdim)), self.size):
            self.notes.append(
                f"pixdim says a spacing of {_triple(np.abs(self.pixdim))}, {label} one of {_triple(spacing)}: "
                "the sform is used"
            )
        if qform is not None and far_apart(sform, qform, self.size):
            corner = farthest_corner(sform, qform, self.size)
            places = [position(self._lps(affine), corner) for affine in (sform, qform)]
            self.notes.append(
                f"{label} and the qform (code {_form(self.qform_code)}) disagree: they put voxel {corner} at "
                f"{places[0]} and at {places[1]} mm (LPS): the sform is used"
            )

    def _from_pixdim(self) -> NDArray[np.float64]:
        spacing = np.abs(self.pixdim)
        if not (np.isfinite(spacing).all() and spacing.all()):
            raise self._bad_spacing()
        center = (np.array(self.size) - 1) / 2
        affine = np.diag([*(spacing * [-1, 1, 1]), 1.0])  # as nibabel and FSL read it: the first axis runs to the left
        affine[:3, 3] = -affine[:3, :3] @ center
        last = tuple(n - 1 for n in self.size)
        other = np.diag([*spacing, 1.0]) * self.mm_per_unit
        self.notes.append(
            "neither sform nor qform is in use (codes 0), so where the voxels lie in the patient is not known: read as "
            f"nibabel and FSL do, axes to the left, front and top about 0, last voxel at "
            f"{position(self._lps(affine), last)} mm (LPS); ITK and Slicer put it at {position(other, last)}"
        )
        return self._lps(affine)


def _form(code: int) -> str:
    return f"{code}, {FORM_NAMES[code]}" if code in FORM_NAMES else str(code)


def _triple(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
