"""`crossalign export`: the networks of a model as ONNX files."""

from __future__ import annotations

from crossalign.cli.checks import check_apart, weight_files
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.export import ExportRequest
from crossalign.cli.results.export import ExportedNetwork, ExportResult
from crossalign.export.exporting import ExportChoice, Exported, export_model
from crossalign.export.onnx_file import TOLERANCE


def run_export(request: ExportRequest) -> Outcome[ExportResult]:
    """Export each network of a model to a file of its own, checked. Raises CrossalignError."""
    check_apart((request.output,), weight_files(request.model))
    choice = ExportChoice(request.model, request.stage, request.volume_shape)
    exported = export_model(choice, request.output, request.overwrite)
    lines = tuple(line for one in exported for line in _lines(one))
    result = ExportResult(tuple(_result(one) for one in exported), TOLERANCE)
    return Outcome(lines, result=result, outputs=tuple(one.path for one in exported))


def _lines(exported: Exported) -> tuple[str, ...]:
    of, agreement = exported.description, exported.agreement
    stage = f", network {of.stage} of {of.stages}" if of.stages > 1 else ""
    inputs = ", ".join(f"{name} {size}" for name, size in of.sizes.items())
    batches = " and ".join(map(str, agreement.batches))
    return (
        f"network  {of.name}{stage}: {of.network}, {inputs}",
        f"checked  with onnxruntime on batches of {batches}: largest difference {agreement.largest:.2g}",
        f"wrote    {exported.path} ({exported.path.stat().st_size / 1e6:.1f} MB)",
    )


def _result(exported: Exported) -> ExportedNetwork:
    of, agreement = exported.description, exported.agreement
    return ExportedNetwork(
        file=exported.path,
        name=of.name,
        network=of.network,
        stage=of.stage,
        stages=of.stages,
        task=of.task,
        licence=of.licence,
        sha256=of.sha256[of.stage - 1],
        inputs=of.sizes,
        checked_batches=agreement.batches,
        largest_difference=agreement.largest,
        differences=agreement.differences,
    )
