"""One DICOM file: whether it is one, and its header, read without a word from the library and without its pixels."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from crossalign.errors import ImageError
from crossalign.input import check_regular_file

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

T = TypeVar("T")
PREAMBLE, MAGIC = 128, b"DICM"
# Files without a preamble begin with a short element of group 8 or of the file's meta information.
BARE_GROUPS = (b"\x08\x00", b"\x02\x00")
BARE_ELEMENTS = range(0x20)
DEFLATED = b"1.2.840.10008.1.2.1.99"  # a transfer syntax in which a small file may stand for any number of bytes
META_BYTES = 1024
DEFER_BYTES = 1024**2
DAMAGED = "the DICOM header is damaged: copy the file again from its source"


@contextmanager
def quiet_library() -> Iterator[None]:
    """Drop what pydicom warns of and logs: it repeats values of the header, such as the patient's name."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def is_dicom_file(path: Path) -> bool:
    """Say whether a regular file is DICOM by its first bytes, whatever its name, with or without a preamble."""
    try:
        with path.open("rb") as file:
            first = file.read(PREAMBLE + len(MAGIC))
    except OSError:
        return False
    return first[PREAMBLE:] == MAGIC or _is_bare(first)


def _is_bare(first: bytes) -> bool:
    """Whether bytes begin as a data set without a preamble does, in little endian byte order."""
    if (
        len(first) < PREAMBLE
        or first[:2] not in BARE_GROUPS
        or int.from_bytes(first[2:4], "little") not in BARE_ELEMENTS
    ):
        return False
    explicit = first[4:6].isalpha() and first[4:6].isupper()
    return explicit or int.from_bytes(first[4:8], "little") <= PREAMBLE


def parsed(path: Path, name: str, extract: Callable[[FileDataset], T]) -> T:
    """Read the header of a DICOM file and return what `extract` takes out of it; raises ImageError.

    Values are converted where they are looked at, so what `extract` meets may be damaged too. `name` begins messages.
    """
    import pydicom

    check_regular_file(path, ImageError)
    try:
        with path.open("rb") as file:
            if DEFLATED in file.read(META_BYTES):
                raise ImageError(f"{name}: the DICOM file is deflated as a whole: unpack it, with dcmconv of DCMTK say")
        with quiet_library():
            return extract(pydicom.dcmread(path, stop_before_pixels=True, force=True, defer_size=DEFER_BYTES))
    except (ImageError, MemoryError):
        raise
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or 'an error of the disk'}") from error
    except Exception as error:  # pydicom raises whatever a damaged element makes its parsers raise
        raise ImageError(f"{name}: {DAMAGED}") from error
