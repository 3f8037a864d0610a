"""Whether a NIfTI file holds all of its voxels: ITK reads a truncated one without a word, and the rest is noise."""

import gzip
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

from crossalign.errors import ImageError

GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20
# NIfTI version by header size: the format and place of the bits in a voxel and of the offset of the first voxel.
FIELDS = {348: (("h", 72), ("f", 108)), 540: (("h", 14), ("q", 168))}


def check_complete(path: Path, voxels: int) -> None:
    """Raise ImageError where a NIfTI file (compressed or not) ends before its last voxel; other files pass."""
    try:
        with path.open("rb") as file:
            if file.read(2) != GZIP_MAGIC:
                file.seek(0)
                _check_stream(file, path.name, voxels)
                return
        with gzip.open(path) as stream:
            _check_stream(stream, path.name, voxels)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImageError(
            f"{path.name}: the compressed file is damaged or truncated: copy it again ({error})"
        ) from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check_stream(stream: BufferedIOBase, name: str, voxels: int) -> None:
    header = stream.read(540)
    expected = _expected_bytes(header, voxels)
    if expected is None:
        return
    got = len(header)
    while got < expected + CHUNK_BYTES:  # a little further than needed, so that gzip reaches its checksum
        block = stream.read(CHUNK_BYTES)
        if not block:
            break
        got += len(block)
    if got < expected:
        raise ImageError(f"{name}: the file is truncated: {got} bytes, expected {expected}: copy it again")


def _expected_bytes(header: bytes, voxels: int) -> int | None:
    """Read from the header how long the file must be; None where this is not a NIfTI file of its own (.nii)."""
    for order in "<>":
        size = struct.unpack(f"{order}i", header[:4])[0] if len(header) >= 4 else 0
        if size not in FIELDS or len(header) < size or header[344:347] == b"ni1":
            continue
        (bits_format, bits_at), (offset_format, offset_at) = FIELDS[size]
        bits = struct.unpack_from(order + bits_format, header, bits_at)[0]
        offset = struct.unpack_from(order + offset_format, header, offset_at)[0]
        return int(offset) + voxels * bits // 8
    return None
