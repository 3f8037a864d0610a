"""What `export` takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crossalign.cli.options import command


@dataclass(frozen=True)
class ExportRequest:
    """Write the networks of a model as ONNX files, each checked with onnxruntime first: crops in, six numbers out."""

    model: str
    """Shipped model by name (see `crossalign models`), or a model file, as a training wrote it."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """File to write (.onnx); of several networks NAME-1.onnx, NAME-2.onnx, ..."""
    stage: int | None = field(default=None, kw_only=True)
    """Which network alone, from 1, where the model has several."""
    volume_shape: tuple[int, int, int] | None = field(default=None, kw_only=True)
    """Size z,y,x of the volumes of a fusion network, voxels; 64,64,64 where it is left out."""
    overwrite: bool = field(default=False, kw_only=True)
    """Replace outputs that exist."""


export = command(ExportRequest)
