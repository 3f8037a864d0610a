"""Sessions of onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from crossalign.errors import WeightsError
from crossalign.extras import optional_module
from crossalign.input import check_regular_file, excerpt

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LIMIT_BYTES = 2 * 1024**3


def open_session(source: Path | bytes, threads: int = 0) -> InferenceSession:
    """Open an exported network on the CPU, with so many threads (0: as many as there are cores).

    Raises WeightsError where it is none, InputError where onnxruntime is not installed.
    """
    onnxruntime = optional_module("onnxruntime", "exported networks need onnxruntime", "onnx")
    name = "the exported network" if isinstance(source, bytes) else excerpt(source.name)
    if isinstance(source, Path):
        check_regular_file(source, WeightsError)
        if source.stat().st_size > LIMIT_BYTES:
            raise WeightsError(f"{name}: is over the 2 GiB of an exported network")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    try:
        content = source if isinstance(source, bytes) else str(source)
        session: InferenceSession = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return session
    except Exception as error:  # its errors have no common base
        raise WeightsError(f"{name}: no ONNX file that onnxruntime can run: {excerpt(error, 200)}") from error
