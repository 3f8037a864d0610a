"""Names of data files in a header: plain regular files in the header's own folder, and nothing else.

A header may come from anywhere; it must not make the program read `/etc/passwd`, a device or `../other`, nor hand a
name to printf.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from crossalign.errors import ImageError
from crossalign.input import check_regular_file, shown

COUNT_LIMIT = 100_000
PATTERN = re.compile(r"([^%]*)%(0?)([0-9]{0,2})[di]([^%]*)")


def data_file(header: Path, file_name: str, name: str) -> Path:
    """Return the path of a data file that a header names; raises ImageError where it may not be read."""
    advice = "put the voxels beside the header, or convert the image to one file (.nrrd, .mha, .nii.gz)"
    if not file_name or file_name in (".", "..") or any(c in file_name for c in "/\\%\0") or len(file_name) > 255:
        raise ImageError(
            f"{name}: the header names {shown(file_name)!r} as its data, expected a plain file name: {advice}"
        )
    path = header.parent / file_name
    check_regular_file(path, ImageError)
    if Path(os.path.realpath(path)).parent != Path(os.path.realpath(header.parent)):
        raise ImageError(f"{name}: its data file {shown(file_name)} is a link out of the folder: {advice}")
    return path


def numbered_names(text: str, name: str) -> list[str]:
    """Return the names that a pattern such as `slice%03d.raw 1 20 1` (first, last, step) stands for."""
    words = text.split()
    match = PATTERN.fullmatch(words[0])
    numbers = words[1:4]
    if match is None or len(numbers) < 2 or not all(re.fullmatch(r"-?[0-9]{1,9}", word) for word in numbers):
        raise ImageError(
            f"{name}: cannot tell the data files from {shown(text)!r}: expected a pattern with one %d and first, last "
            "and step, or convert the image to one file"
        )
    first, last, step = int(numbers[0]), int(numbers[1]), int(numbers[2]) if len(numbers) == 3 else 1
    if step == 0 or (last - first) * step < 0 or abs(last - first) // abs(step) >= COUNT_LIMIT:
        raise ImageError(f"{name}: {shown(text)!r} counts no files, or too many: mend its first, last and step")
    before, zero, width, after = match.groups()
    stop = last + (1 if step > 0 else -1)
    return [f"{before}{number:{zero}{width}d}{after}" for number in range(first, stop, step)]
