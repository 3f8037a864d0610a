"""The text headers of NRRD and MetaImage: a bounded number of bounded lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossalign.errors import ImageError
from crossalign.images.formats.header import HEADER_LIMIT_BYTES, LINE_LIMIT_BYTES
from crossalign.input import check_regular_file


def header_lines(path: Path, name: str) -> Iterator[tuple[str, int]]:
    """Give the lines of a file, without their ends, and where in the file the next one begins. Raises ImageError."""
    check_regular_file(path, ImageError)
    try:
        with path.open("rb") as file:
            place = 0
            while line := file.readline(LINE_LIMIT_BYTES + 1):
                place += len(line)
                if len(line) > LINE_LIMIT_BYTES or place > HEADER_LIMIT_BYTES:
                    raise ImageError(
                        f"{name}: the header is longer than {HEADER_LIMIT_BYTES} bytes or has a line of more than "
                        f"{LINE_LIMIT_BYTES}: the header is damaged"
                    )
                yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape"), place
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
