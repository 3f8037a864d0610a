"""Reading voxels in blocks: bounded by what the header asks for, and checked against the stream's own checksum."""

from __future__ import annotations

import binascii
import bz2
import gzip
import io
import lzma
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import ImageError, InputWarning
from crossalign.images.files.formats.header import SKIP_LIMIT_BYTES, Header, Part
from crossalign.input import check_regular_file, excerpt

BLOCK_BYTES = 1 << 20
DEFLATE_RATIO = 1032  # no deflated byte stands for more
SURPLUS_LIMIT_BYTES = 64 * 1024**2
WORD_LIMIT = 64
LABEL_LIMIT = 2.0**53  # beyond this a float does not hold every whole number

Convert = Callable[[NDArray[Any]], NDArray[Any]]


@runtime_checkable
class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_float32(header: Header) -> NDArray[np.float32]:
    """Read the values of the voxels (z, y, x); what float32 cannot hold becomes infinite. Raises ImageError."""

    def scaled(block: NDArray[Any]) -> NDArray[Any]:
        if header.slope == 1 and header.intercept == 0:
            return block
        return block.astype(np.float64) * header.slope + header.intercept

    with np.errstate(over="ignore", invalid="ignore"):
        return _filled(header, np.dtype(np.float32), scaled)


def read_labels(header: Header) -> NDArray[np.int64]:
    """Read the values of the voxels (z, y, x) as whole numbers; raises ImageError where they are none."""

    def whole(block: NDArray[Any]) -> NDArray[Any]:
        if header.slope != 1 or header.intercept != 0:
            block = block.astype(np.float64) * header.slope + header.intercept
        if block.dtype.kind == "f":
            good = np.isfinite(block) & (block == np.rint(block)) & (np.abs(block) <= LABEL_LIMIT)
        else:
            good = block <= np.iinfo(np.int64).max
        if not good.all():
            raise ImageError(
                f"{header.name}: a mask must hold whole numbers (0 is background), got fractions or NaN: is this a "
                "scan? Where it is a probability map, threshold it first, at 0.5 say"
            )
        return block

    with np.errstate(over="ignore", invalid="ignore"):
        return _filled(header, np.dtype(np.int64), whole)


def _filled(header: Header, target: np.dtype[Any], convert: Convert) -> NDArray[Any]:
    values = np.empty(header.voxel_count, target)
    share = header.voxel_count // len(header.parts)  # slices of one size, or the whole image
    for number, part in enumerate(header.parts):
        done = number * share
        for block in _blocks(header, part, share):
            values[done : done + len(block)] = convert(block)
            done += len(block)
    x, y, z = header.size
    return values.reshape(z, y, x)


def _blocks(header: Header, part: Part, count: int) -> Iterator[NDArray[Any]]:
    """Give the stored values of one part in blocks; raises ImageError where there are fewer than `count`."""
    needed = count * header.kind.itemsize
    name = header.name if part.path.name == header.name else f"{header.name}: {excerpt(part.path.name)}"
    check_regular_file(part.path, ImageError)
    try:
        with part.path.open("rb") as file:
            file.seek(_first_byte(file, part, needed, name))
            if part.encoding == "text":
                yield from _text_blocks(file, header.kind, count, name)
                return
            yield from _binary_blocks(_decoded(file, part), part, needed, header.kind, name)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, binascii.Error) as error:
        raise ImageError(f"{name}: the compressed file is damaged or truncated: copy it again") from error
    except OSError as error:
        if part.encoding == "bzip2" and error.errno is None:
            raise ImageError(f"{name}: the compressed file is damaged or truncated: copy it again") from error
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error


def _first_byte(file: io.BufferedReader, part: Part, needed: int, name: str) -> int:
    """Find where the part begins; raises ImageError where the file is too short to hold it."""
    total = file.seek(0, io.SEEK_END)
    first = total - needed if part.first_byte < 0 else part.first_byte
    held = total - first
    if part.encoding in ("gzip", "zlib"):
        held = held * DEFLATE_RATIO + BLOCK_BYTES
    elif part.encoding == "hex":
        held //= 2
    if first < 0 or (part.encoding in ("raw", "gzip", "zlib", "hex") and held < needed + part.skipped):
        raise _truncated(name, max(0, min(total, total - part.first_byte)), needed)
    if part.skipped > SKIP_LIMIT_BYTES:
        raise ImageError(f"{name}: the header puts the voxels {part.skipped} bytes into the file: mend the header")
    return first


def _truncated(name: str, got: int, needed: int) -> ImageError:
    return ImageError(f"{name}: the file is truncated: {got} bytes of voxels, expected {needed}: copy it again")


def _decoded(file: io.BufferedReader, part: Part) -> _Stream:
    if part.encoding == "gzip":
        return gzip.GzipFile(fileobj=file)
    if part.encoding == "bzip2":
        return bz2.BZ2File(file)
    if part.encoding == "zlib":
        return _Inflated(file)
    return _Hexadecimal(file) if part.encoding == "hex" else file


def _binary_blocks(stream: _Stream, part: Part, needed: int, kind: np.dtype[Any], name: str) -> Iterator[NDArray[Any]]:
    skipped = 0
    while skipped < part.skipped and (block := stream.read(min(BLOCK_BYTES, part.skipped - skipped))):
        skipped += len(block)
    got, rest = 0, b""
    while got < needed:
        block = stream.read(min(BLOCK_BYTES, needed - got))
        if not block:
            raise _truncated(name, got, needed)
        got += len(block)
        whole = rest + block
        used = len(whole) - len(whole) % kind.itemsize
        yield np.frombuffer(whole[:used], kind)
        rest = whole[used:]
    _check_end(stream, part, needed, name)


def _check_end(stream: _Stream, part: Part, needed: int, name: str) -> None:
    """Read to the end, where a compressed stream compares its checksum, and warn of bytes that are left over."""
    surplus = 0
    while block := stream.read(BLOCK_BYTES):
        surplus += len(block)
        if surplus > SURPLUS_LIMIT_BYTES:
            if part.encoding != "raw":
                raise ImageError(
                    f"{name}: the file holds far more than the {needed} bytes of its header: mend the header"
                )
            break
    if surplus:
        count = f"over {SURPLUS_LIMIT_BYTES}" if surplus > SURPLUS_LIMIT_BYTES else str(surplus)
        text = f"{name}: the file holds {count} bytes more than its header says: they were not read"
        warnings.warn(text, InputWarning, stacklevel=2)


def _text_blocks(file: io.BufferedReader, kind: np.dtype[Any], count: int, name: str) -> Iterator[NDArray[Any]]:
    got, rest = 0, b""
    while got < count:
        block = file.read(BLOCK_BYTES)
        words = (rest + block).split()
        rest = words.pop() if block and words and not block[-1:].isspace() else b""
        if not block and not words:
            raise ImageError(f"{name}: the file is truncated: {got} numbers, expected {count}: copy it again")
        words = words[: count - got]
        if any(len(word) > WORD_LIMIT for word in (rest, *words)):
            raise ImageError(f"{name}: the voxels are no numbers: a word is longer than {WORD_LIMIT} characters")
        try:
            yield np.array([word.decode("ascii") for word in words]).astype(kind.newbyteorder("="))
        except (ValueError, OverflowError) as error:
            raise ImageError(f"{name}: the voxels are no numbers of type {kind.name}: {excerpt(error)}") from error
        got += len(words)


class _Inflated:
    """A zlib or gzip stream that checks its checksum, as MetaImage has it; a missing end is an EOFError."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(wbits=47)  # 47: either header

    def read(self, size: int, /) -> bytes:
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(BLOCK_BYTES)
            plain = self._inflater.decompress(packed, size)
            if plain:
                return plain
            if not packed:
                raise EOFError
        return b""


class _Hexadecimal:
    """Bytes written as pairs of hexadecimal digits, white space between them left out."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        digits = self._rest
        while len(digits) < 2 * size and (block := self._file.read(2 * size)):
            digits += b"".join(block.split())
        used = min(len(digits) - len(digits) % 2, 2 * size)
        self._rest = digits[used:]
        return binascii.unhexlify(digits[:used])


def head(path: Path, length: int) -> tuple[bytes, bool]:
    """Return the first bytes of a file, decompressed where it is gzip, and whether it is. Raises ImageError."""
    check_regular_file(path, ImageError)
    name = excerpt(path.name)
    try:
        with path.open("rb") as file:
            first = file.read(length)
            if first[:2] != b"\x1f\x8b":
                return first, False
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as stream:
                return stream.read(length), True
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImageError(f"{name}: the compressed file is damaged or truncated: copy it again") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
