"""A network as an ONNX file: exported, checked against the network with onnxruntime, and only then written."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.export.graphs import BATCH, Graph
from crossalign.export.loop import with_count, with_steps
from crossalign.extras import optional_module
from crossalign.onnx_runtime.session import open_session
from crossalign.output import whole_file, write_bytes

OPSET = 20  # the first with 3-D resampling
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 3)
TRACED_BATCH = 2
NEEDED = ("onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of onnxruntime are from the network's on fresh inputs: the largest difference by output.

    In the outputs' own units: mm and degrees for parameters. Of a network with steps after it, after the first of them:
    many amplify rounding in single voxels, in either program.
    """

    batches: tuple[int, ...]
    differences: Mapping[str, float]

    @property
    def largest(self) -> float:
        """The largest of all."""
        return max(self.differences.values())


def check_installed() -> None:
    """Raise InputError where what an export needs is not installed."""
    for name in NEEDED:
        optional_module(name, f"an export needs {name}", "onnx")


@torch.no_grad()
def export_graph(graph: Graph, metadata: Mapping[str, str], path: Path, overwrite: bool = False) -> Agreement:
    """Write a graph with its metadata, and return how well the file agrees with the network on the CPU.

    Raises InputError where a package is missing, or an output differs by more than 1e-4: then no file is written.
    Raises OutputError.
    """
    check_installed()
    generator = torch.Generator().manual_seed(0)
    inputs = graph.draw(TRACED_BATCH, generator)
    graph.module(*inputs)  # what the network keeps of sizes it has seen must not be made while it is traced
    content = _content(graph, inputs, metadata)
    agreement = _agreement(graph, content, generator)
    if not agreement.largest <= TOLERANCE:
        found = ", ".join(f"{name} {value:.2g}" for name, value in agreement.differences.items())
        raise InputError(
            f"the exported network differs from the network by more than {TOLERANCE:g} ({found}): it was not written"
        )
    with whole_file(path, overwrite) as partial:
        write_bytes(content, partial)
    return agreement


def _content(graph: Graph, inputs: tuple[Tensor, ...], metadata: Mapping[str, str]) -> bytes:
    if graph.steps is None:
        model = _exported(graph.module, inputs, list(graph.inputs), list(graph.outputs))
    else:
        begun = graph.module(*inputs)
        names = [f"begun_{number}" for number in range(len(begun))]
        first = _exported(graph.module, inputs, list(graph.inputs), names)
        step = _exported(graph.steps.module, begun, [f"{name}_in" for name in names], ["after", "step"])
        model = with_steps(first, step, graph.steps, graph.outputs[0])
    for name, text in metadata.items():
        model.metadata_props.add(key=name, value=text)
    return bytes(model.SerializeToString())


def _exported(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str]) -> Any:
    """Return a module as an ONNX model, the size of the batch free."""
    batch = torch.export.Dim(BATCH, min=1)
    sizes: Any = tuple({0: batch} for _ in inputs)
    if any(kind is Parameter.VAR_POSITIONAL for kind in _kinds(module)):
        fixed = sum(kind is Parameter.POSITIONAL_OR_KEYWORD for kind in _kinds(module))
        sizes = (*sizes[:fixed], sizes[fixed:])
    with _quiet():
        traced = torch.export.export(module, inputs, dynamic_shapes=sizes)
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=names,
            output_names=outputs,
            opset_version=OPSET,
            custom_translation_table={
                torch.ops.aten.grid_sampler_3d.default: _grid_sample,
                torch.ops.prims.hypot.default: _hypot,
            },
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _kinds(module: nn.Module) -> list[Any]:
    return [one.kind for one in signature(module.forward).parameters.values()]


def _agreement(graph: Graph, content: bytes, generator: torch.Generator) -> Agreement:
    checked = content if graph.steps is None else with_count(content, graph.steps.checked)
    session = open_session(checked)
    largest = dict.fromkeys(graph.outputs, 0.0)
    for count in CHECKED_BATCHES:
        inputs = graph.draw(count, generator)
        expected = graph.reference(*inputs)
        found = session.run(
            list(graph.outputs), {name: value.numpy() for name, value in zip(graph.inputs, inputs, strict=True)}
        )
        for name, mine, theirs in zip(graph.outputs, expected, found, strict=True):
            difference = float((mine - torch.from_numpy(theirs)).abs().max())
            largest[name] = max(largest[name], difference) if difference == difference else difference
    return Agreement(CHECKED_BATCHES, largest)


def _grid_sample(input: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Any:  # noqa: A002 (torch's name)
    """Translate torch's 3-D resampling, which the exporter does not know."""
    from onnxscript import opset20

    return opset20.GridSample(
        input,
        grid,
        mode=("linear", "nearest", "cubic")[interpolation_mode],
        padding_mode=("zeros", "border", "reflection")[padding_mode],
        align_corners=int(align_corners),
    )


def _hypot(a: Any, b: Any) -> Any:
    from onnxscript import opset20

    return opset20.Sqrt(opset20.Add(opset20.Mul(a, a), opset20.Mul(b, b)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter says of itself: a deprecated call of its own, and packages that it could use."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".isinstance\(treespec, LeafSpec\). is deprecated", FutureWarning)
        exporter.setLevel(logging.ERROR)
        try:
            yield
        finally:
            exporter.setLevel(level)
