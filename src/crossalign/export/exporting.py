"""Each network of a model file as an ONNX file of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossalign.errors import InputError
from crossalign.export.graphs import Graph, fusion_graph, recognition_graph, registration_graph
from crossalign.export.onnx_file import Agreement, check_installed, export_graph
from crossalign.fusion.networks.model_files import load_fusion_model
from crossalign.models.model import load_model
from crossalign.models.model_file import ModelContents, read_model_file
from crossalign.models.pretrained import shipped_names, shipped_path
from crossalign.models.recognition import load_recognition
from crossalign.onnx_runtime.description import Description
from crossalign.output import check_output
from crossalign.types import Shape

DEFAULT_SHAPE: Shape = (64, 64, 64)
TASKS = ("registration", "recognition", "fusion")


@dataclass(frozen=True)
class ExportChoice:
    """Which model is exported, a shipped name or a file, which of its networks (`stage`, from 1; None: every one).

    `volume_shape` (z, y, x) is for fusion networks, whose volumes have no size of their own.
    """

    source: str
    stage: int | None = None
    volume_shape: Shape | None = None


@dataclass(frozen=True, eq=False)
class Exported:
    """A file that was written, what it says of itself, and how far its outputs are from the network's."""

    path: Path
    description: Description
    agreement: Agreement


@dataclass(frozen=True, eq=False)
class _Network:
    """One network to export."""

    graph: Graph
    description: Description


def export_model(settings: ExportChoice, output: Path, overwrite: bool = False) -> tuple[Exported, ...]:
    """Export the networks of a shipped model by its name, or of a model file, each checked before it is written.

    One network goes to `output`, several to names with `-1`, `-2` and so on before the suffix. Raises WeightsError,
    InputError for a stage that there is not and where a file would not agree with its network, OutputError.
    """
    check_installed()
    contents = read_model_file(shipped_path(settings.source) or Path(settings.source))
    numbers = _numbers(settings, contents)
    paths = output_paths(output, len(contents.stages), numbers)
    for path in paths:
        check_output(path, overwrite)
    networks = [_network(settings, contents, number) for number in numbers]
    return tuple(
        Exported(path, one.description, export_graph(one.graph, one.description.metadata(), path, overwrite))
        for one, path in zip(networks, paths, strict=True)
    )


def output_paths(output: Path, stages: int, numbers: Sequence[int]) -> tuple[Path, ...]:
    """Name a file for each network. Raises InputError for another suffix than .onnx."""
    if output.suffix != ".onnx":
        raise InputError(f"{output.name}: expected a name that ends in .onnx")
    if stages == 1 or len(numbers) == 1:
        return (output,)
    return tuple(output.with_name(f"{output.stem}-{number}{output.suffix}") for number in numbers)


def _numbers(settings: ExportChoice, contents: ModelContents) -> tuple[int, ...]:
    """Return the numbers of the networks to export, from 1."""
    if contents.task not in TASKS:
        listed = ", ".join(name for task in TASKS for name in shipped_names(task))
        raise InputError(
            f"{settings.source}: holds extractors, no whole network: export one of {listed}, or a stage file"
        )
    count = len(contents.stages)
    if settings.volume_shape is not None and contents.task != "fusion":
        raise InputError("the volumes' shape is for fusion networks: the crops of others are of the size of training")
    if settings.stage is None:
        return tuple(range(1, count + 1))
    if not 1 <= settings.stage <= count:
        raise InputError(f"{settings.source}: has {count} network{'s' * (count > 1)}, got stage {settings.stage}")
    return (settings.stage,)


def _network(settings: ExportChoice, contents: ModelContents, number: int) -> _Network:
    made = {"registration": _registration, "recognition": _recognition, "fusion": _fusion}
    graph, network, of = made[contents.task](settings, contents, number)
    registers = contents.task == "registration"
    return _Network(
        graph,
        Description(
            name=contents.card.name or Path(settings.source).stem,
            task=contents.task,
            network=network,
            licence=contents.card.licence.replace("`", "") or "not stated",
            settings=of,
            sizes={name: " x ".join(map(str, size)) for name, size in graph.inputs.items()},
            sha256=tuple(stage.sha256 for stage in contents.stages),
            stage=number,
            arrangement=contents.arrangement,
            run=_plain(contents.run) if registers else {},
            calibration=_plain(contents.calibration) if registers else None,
        ),
    )


def _registration(settings: ExportChoice, _: ModelContents, number: int) -> tuple[Graph, str, dict[str, Any]]:
    stage = load_model(settings.source).stages[number - 1]
    of = stage.settings
    return registration_graph(stage.network, of.crop_shape, of.moving_channels()), of.network, _plain(of)


def _recognition(_: ExportChoice, contents: ModelContents, __: int) -> tuple[Graph, str, dict[str, Any]]:
    network, of = load_recognition(contents.path)
    return recognition_graph(network, of.crop_size), "recognition", _plain(of)


def _fusion(settings: ExportChoice, contents: ModelContents, _: int) -> tuple[Graph, str, dict[str, Any]]:
    model = load_fusion_model(contents.path)
    multiple = model.settings.multiple
    shape = settings.volume_shape or tuple(-(-size // multiple) * multiple for size in DEFAULT_SHAPE)
    if any(size < 1 or size % multiple for size in shape):
        raise InputError(f"the volumes' shape must be multiples of {multiple}, got {','.join(map(str, shape))}")
    depth, height, width = shape
    return fusion_graph(model.network, (depth, height, width)), model.settings.network, _plain(model.settings)


def _plain(settings: Any) -> Any:
    """Return settings as JSON holds them."""
    values = asdict(settings) if hasattr(settings, "__dataclass_fields__") else settings
    return json.loads(json.dumps(values))
