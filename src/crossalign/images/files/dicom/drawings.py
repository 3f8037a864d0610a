"""The segmentation or structure set that a path means, where it means one."""

from __future__ import annotations

from pathlib import Path

from crossalign.errors import ImageError
from crossalign.images.files.dicom.contours import read_structure_set
from crossalign.images.files.dicom.header import STRUCTURE_SET
from crossalign.images.files.dicom.segmentation import read_segmentation
from crossalign.images.files.dicom.series import LISTED_SERIES, grouped, read_headers
from crossalign.images.files.structures import StructureFile
from crossalign.input import excerpt


def open_drawings(path: Path, memory_limit_bytes: int | None = None) -> StructureFile | None:
    """Open the DICOM segmentation or RT structure set of a path; None where it holds images alone.

    Raises ImageError where a folder holds several, or the one is damaged.
    """
    name = excerpt(path.name or path, 255)
    found = [header for header in read_headers(path, name) if header.has_structures]
    if not found:
        return None
    if len(found) > 1:
        listed = "; ".join(series.described() for series in grouped(found)[:LISTED_SERIES])
        raise ImageError(
            f"{name}: holds {len(found)} files of structures ({listed}), expected one: name the file itself"
        )
    read = read_structure_set if found[0].sop_class == STRUCTURE_SET else read_segmentation
    return read(found[0].path, found[0].modality, memory_limit_bytes)
