"""Safetensors files: checked before anything of them is allocated, and sealed with a digest of what they hold."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crossalign.errors import InputError, WeightsError
from crossalign.input import check_regular_file, excerpt, parse_json
from crossalign.output import whole_file

SEAL = "sha256"  # the metadata's entry that holds the digest of everything else in the file
TENSOR_LIMIT, HEADER_LIMIT_BYTES = 100_000, 8 * 1024**2
AXIS_LIMIT = 8
ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
ITEM_BYTES |= {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
GIB = 1024**3


@dataclass(frozen=True)
class FileKind:
    """Which file was expected: how an error calls one that is not it, its class, and what is allowed."""

    refusal: str = "not a safetensors file, or damaged"
    error: type[InputError] = WeightsError
    limit_bytes: int = 2 * GIB
    finite: bool = True  # numbers must be


@dataclass(frozen=True)
class TensorHeader:
    """What a file says that it holds: free text by name, and the shape of each tensor and its type (as F32)."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]


def save_tensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path, overwrite: bool = False
) -> None:
    """Write tensors and text with their digest (SEAL), so that a reader finds every changed bit. Raises OutputError."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    sealed = {**metadata, SEAL: digest_of(plain, metadata)}
    with whole_file(path, overwrite) as partial:
        mode = partial.stat().st_mode
        save_file(plain, partial, sealed)
        partial.chmod(stat.S_IMODE(mode))  # safetensors puts a file of its own there, which only its owner may read


def read_tensor_header(path: Path, kind: FileKind = FileKind()) -> TensorHeader:
    """Read names, shapes and text alone, each checked against the file's size; raises the kind's error."""
    check_regular_file(path, kind.error)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            _check_sizes(path, kind, size, length)
            text = file.read(length)
    except OSError as error:
        raise kind.error(f"{path.name}: cannot be read: {error.strerror}") from error
    try:
        values = parse_json(text.decode("utf-8"), "its header", kind.error)
        return _header(values, size - 8 - length)
    except (InputError, ValueError) as error:
        raise refused(path, kind, error) from error


def read_tensors(path: Path, kind: FileKind = FileKind(), header: TensorHeader | None = None) -> dict[str, Tensor]:
    """Read the tensors of a file whose header is fine; raises the kind's error, also for a digest that does not fit.

    A file without a digest is read as it is: earlier versions wrote none.
    """
    header = header or read_tensor_header(path, kind)
    tensors = load_tensors(path, kind)
    check_seal(tensors, header, path, kind)
    if kind.finite:
        check_finite(tensors, path, kind)
    return tensors


def load_tensors(path: Path, kind: FileKind) -> dict[str, Tensor]:
    """Read the tensors of a file whose header is fine, whatever they hold; raises the kind's error."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise refused(path, kind, error) from error


def check_seal(tensors: Mapping[str, Tensor], header: TensorHeader, path: Path, kind: FileKind) -> None:
    """Raise the kind's error where a file has a digest, and text and tensors are not those that it was made of."""
    plain = {name: value for name, value in header.metadata.items() if name != SEAL}
    if header.metadata.get(SEAL) not in (None, digest_of(tensors, plain)):
        raise refused(path, kind, "its content is not what was written (SHA-256)")


def check_finite(tensors: Mapping[str, Tensor], path: Path, kind: FileKind = FileKind()) -> None:
    """Raise the kind's error where a tensor holds NaN or infinite numbers."""
    for name, value in tensors.items():
        if value.dtype.is_floating_point and not bool(value.isfinite().all()):
            raise refused(path, kind, f"'{excerpt(name)}' holds numbers that are not finite")


def refused(path: Path, kind: FileKind, reason: object) -> InputError:
    """Make the error that refuses a file of this kind."""
    return kind.error(f"{excerpt(path.name)}: {kind.refusal}: {excerpt(reason, 300)}")


def digest_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 (hexadecimal) of text and tensors: names, types, shapes and contents, in any order."""
    summed = hashlib.sha256()
    for name in sorted(metadata):
        summed.update(json.dumps([name, metadata[name]]).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        summed.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        summed.update(value.flatten().view(torch.uint8).numpy().data)
    return summed.hexdigest()


def _check_sizes(path: Path, kind: FileKind, size: int, length: int) -> None:
    if size > kind.limit_bytes:
        limit = kind.limit_bytes / GIB
        raise kind.error(f"{excerpt(path.name)}: is {size / GIB:.1f} GiB, over the {limit:g} GiB of a file of its kind")
    if size < 10 or length > size - 8:
        raise refused(path, kind, f"its {size} bytes do not hold the header that they announce")
    if length > HEADER_LIMIT_BYTES:
        raise refused(path, kind, f"its header of {length} bytes is over {HEADER_LIMIT_BYTES}")


def _header(values: Any, data_bytes: int) -> TensorHeader:
    if not isinstance(values, dict):
        raise ValueError("its header is no list of tensors")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata is no text by name")
    if len(values) > TENSOR_LIMIT:
        raise ValueError(f"it holds {len(values)} tensors, more than {TENSOR_LIMIT}")
    shapes = {name: _shape(name, entry, data_bytes) for name, entry in values.items()}
    return TensorHeader(metadata, shapes, {name: entry["dtype"] for name, entry in values.items()})


def _shape(name: str, entry: Any, data_bytes: int) -> tuple[int, ...]:
    """Return a tensor's shape; raises ValueError where it does not fit its type and position in the file."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"'{excerpt(name)}' is not described as a tensor")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _counts(shape) or len(shape) > AXIS_LIMIT or not _counts(offsets) or len(offsets) != 2:
        raise ValueError(f"'{excerpt(name)}' has the shape {excerpt(shape)} at {excerpt(offsets)}")
    if entry["dtype"] not in ITEM_BYTES:
        raise ValueError(
            f"'{excerpt(name)}' is of type {excerpt(entry['dtype'])}, expected one of {', '.join(ITEM_BYTES)}"
        )
    needed = ITEM_BYTES[entry["dtype"]]
    for length in shape:
        needed *= length
    if offsets[1] - offsets[0] != needed or offsets[1] > data_bytes:
        raise ValueError(f"'{excerpt(name)}' needs {needed} bytes, which are not at {excerpt(offsets)} of the file")
    return tuple(shape)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
