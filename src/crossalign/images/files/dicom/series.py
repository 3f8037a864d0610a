"""Which DICOM files are meant: those of a folder, or the series of one file, listed and chosen without identity."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossalign.errors import ImageError
from crossalign.images.files.dicom.header import DIRECTORY, DicomHeader, read_dicom_header
from crossalign.images.files.dicom.parsing import is_dicom_file
from crossalign.input import check_regular_file, excerpt

DICOM = "DICOM series"
FILE_LIMIT = 20_000
DEPTH_LIMIT = 8
LISTED_SERIES = 20
UID = re.compile(r"[0-9]+(\.[0-9]+)+")
OF_VOLUME = re.compile(r"(?P<series>.*):(?P<volume>[0-9]{1,6})")
CHOOSE = "choose one with --series NUMBER (series= in Python; --fixed-series, --moving-series and so on of two images)"
NAME_ONE = "or name one of its files in place of the folder"


@dataclass(frozen=True)
class Series:
    """The files of one series. `number` is how it is chosen: its own where those of the folder differ, else counted.

    `volume` is the number of the volume that is meant, where a series holds several; None where none was chosen.
    """

    number: int
    headers: tuple[DicomHeader, ...]
    volume: int | None = None

    @property
    def first(self) -> DicomHeader:
        """The header of the first file."""
        return self.headers[0]

    @property
    def name(self) -> str:
        """What messages and reports call it: no name of a file or folder, which may be a patient's."""
        number = self.first.series_number
        return f"{self.first.modality} series" + ("" if number is None else f" {number}")

    def described(self) -> str:
        """Say what it is: number, modality, description without identity, and size."""
        frames = sum(len(header.frames) for header in self.headers)
        columns, rows = self.first.size
        text = f"{self.number}: {self.first.modality}"
        text += f" '{self.first.description}'" if self.first.description else ""
        return f"{text}, {frames} slices of {columns} x {rows}" if frames else text


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is a folder, which can only be one of DICOM files, or a DICOM file by its content."""
    place = Path(path)
    try:
        return place.is_dir() or (place.is_file() and is_dicom_file(place))
    except (OSError, ValueError):  # a name that is too long or holds NUL, which the reader tells
        return False


def image_series(path: Path, wanted: str | int | None = None) -> Series:
    """Find the series of images that a path and a choice mean; raises ImageError that lists the series."""
    name = excerpt(path.name or path, 255)
    found = grouped([header for header in read_headers(path, name) if header.has_image])
    if not found:
        raise ImageError(f"{name}: the DICOM files here hold no image, expected a series of slices: name its folder")
    of_series, volume = _split(found, wanted)
    return replace(chosen(found, of_series, name), volume=volume)


def _split(found: Sequence[Series], wanted: str | int | None) -> tuple[str | int | None, int | None]:
    """Split SERIES:VOLUME, or :VOLUME of the only series; a description that ends so is no such choice."""
    match = None if wanted is None else OF_VOLUME.fullmatch(str(wanted).strip())
    if match is None or any(_matches(series, str(wanted).strip()) for series in found):
        return wanted, None
    return match["series"] or None, int(match["volume"])


def read_headers(path: Path, name: str) -> list[DicomHeader]:
    """Read the headers that a path means: of a folder all, of a file those of its folder that are of its series."""
    if path.is_dir():
        files = dicom_files(path, name)
        headers = [read_dicom_header(file, _place(name, number, files)) for number, file in enumerate(files, 1)]
        if not headers:
            raise ImageError(
                f"{name}: is a folder without a DICOM file, expected a file, or the folder of a DICOM series"
            )
        return headers
    check_regular_file(path, ImageError)
    header = read_dicom_header(path, name)
    if header.sop_class == DIRECTORY or path.name.upper() == "DICOMDIR":
        raise ImageError(f"{name}: a DICOMDIR lists files and holds no image: name the folder of the series")
    if not header.has_image or len(header.frames) > 1 or not header.series_uid:
        return [header]
    folder = path.parent
    others = [file for file in dicom_files(folder, name, depth=0) if not file.samefile(path)]
    of_same = (_header_of_series(file, header.series_uid) for file in others)
    return sorted((header, *(one for one in of_same if one is not None)), key=lambda one: one.path)


def _header_of_series(file: Path, uid: str) -> DicomHeader | None:
    """Return the header of another file where it is of this series; a damaged neighbour of another one is no matter."""
    if uid.encode("ascii", "replace") not in _first_bytes(file):
        return None
    header = read_dicom_header(file, "a file of the same folder")
    return header if header.series_uid == uid and header.has_image else None


def _first_bytes(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(1024**2)


def _place(name: str, number: int, files: Sequence[Path]) -> str:
    return name if len(files) == 1 else f"{name}: file {number} of {len(files)} by name"


def dicom_files(folder: Path, name: str, depth: int = DEPTH_LIMIT) -> list[Path]:
    """List the DICOM files in a folder and those below it, by name; raises ImageError where there are too many files.

    Links to folders are not followed, nor are links to files elsewhere; a DICOMDIR is left out.
    """
    return list(_walk(folder, name, depth))


def holds_dicom(folder: Path) -> bool:
    """Say whether there is a DICOM file in a folder or below it; raises ImageError where there are too many others."""
    return any(True for _ in _walk(folder, excerpt(folder.name, 255), DEPTH_LIMIT))


def _walk(folder: Path, name: str, depth: int) -> Iterator[Path]:
    root, count = Path(os.path.realpath(folder)), 0
    for here, folders, files in os.walk(folder):
        level = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(folders) if level < depth else []
        for file in sorted(files):
            count += 1
            if count > FILE_LIMIT:
                raise ImageError(
                    f"{name}: the folder holds more than {FILE_LIMIT} files: name the folder of one series"
                )
            path = Path(here) / file
            if file.upper() != "DICOMDIR" and _lies_in(path, root) and is_dicom_file(path):
                yield path


def _lies_in(path: Path, root: Path) -> bool:
    """Whether a path is a regular file that lies in a folder, links resolved."""
    return Path(os.path.realpath(path)).is_relative_to(root) and path.is_file()


def grouped(headers: Sequence[DicomHeader]) -> list[Series]:
    """Sort headers into series by SeriesInstanceUID, and give each series the number by which it is chosen."""
    by_uid: dict[str, list[DicomHeader]] = {}
    for header in headers:
        by_uid.setdefault(header.series_uid, []).append(header)
    groups = sorted(
        by_uid.values(), key=lambda group: (group[0].series_number or 0, group[0].description, group[0].path)
    )
    numbers = [group[0].series_number for group in groups]
    own = None not in numbers and len(set(numbers)) == len(numbers)
    return [
        Series(number if own and number is not None else count, tuple(group))
        for count, (number, group) in enumerate(zip(numbers, groups, strict=True), 1)
    ]


def chosen(found: Sequence[Series], wanted: str | int | None, name: str) -> Series:
    """Return the series that is meant: by number, SeriesInstanceUID or a part of the description that only it has."""
    if wanted is None:
        if len(found) == 1:
            return found[0]
        raise ImageError(f"{name}: holds {len(found)} series, expected one: {_listed(found)}; {CHOOSE}, {NAME_ONE}")
    text = str(wanted).strip()
    if not text:
        raise ImageError(f"{name}: the series is empty, expected a number or a part of a description; {_listed(found)}")
    matches = [series for series in found if _matches(series, text)]
    if len(matches) != 1:
        shown = "the UID" if UID.fullmatch(text) and "." in text else f"'{excerpt(text, 40)}'"
        got = "no series" if not matches else f"{len(matches)} series"
        raise ImageError(f"{name}: {shown} fits {got}, expected one of: {_listed(found)}; {CHOOSE}")
    return matches[0]


def _matches(series: Series, text: str) -> bool:
    if text.isdecimal():
        return series.number == int(text[:18])
    if UID.fullmatch(text):
        return series.first.series_uid == text
    return text.casefold() in series.first.description.casefold()


def _listed(found: Sequence[Series]) -> str:
    shown = "; ".join(series.described() for series in found[:LISTED_SERIES])
    rest = len(found) - LISTED_SERIES
    return shown + (f"; and {rest} more" if rest > 0 else "")
