"""The commands about weights: what there is, and what their expected error is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crossalign.cli.options import Outcome

RUN_HELP = "How networks are run, such as initialisations=8,max_passes=5,search=on; else as their file says."
RunOption = Annotated[str, typer.Option(help=RUN_HELP)]


def add_model_commands(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    """Add `models` and `calibrate` to the command line; `say` prints what they return."""
    _add_models(app, say)
    _add_calibrate(app, say)


def _add_models(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    @app.command("models")
    def models_command(
        name: Annotated[str | None, typer.Argument(help="Shipped weights whose card is printed.")] = None,
    ) -> None:
        """List the methods and the weights that come in the package, or print the model card of one."""
        from crossalign.cli.listing import run_models

        say(run_models(name))


def _add_calibrate(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    @app.command("calibrate")
    def calibrate_command(
        table: Annotated[Path, typer.Argument(help="Table (.csv) that `crossalign evaluate` wrote.")],
        method: Annotated[str | None, typer.Option(help="Method of the table, where it has several.")] = None,
        threshold: Annotated[float | None, typer.Option(help="Expected SRE up to which to trust, mm.")] = None,
        keep: Annotated[float, typer.Option(help="Or: the share of these registrations to trust.")] = 0.8,
        judge: Annotated[Path | None, typer.Option(help="Table of other cases to judge the fit by.")] = None,
        weights: Annotated[str | None, typer.Option(help="Weight files of the cascade, joined with +.")] = None,
        run: RunOption = "",
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="Weight file to write: the last stage, calibrated.")
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    ) -> None:
        """Fit the expected SRE to the true one; with --weights and -o keep it in a copy of the weights."""
        from crossalign.cli.calibrating import CalibrateRequest, run_calibrate

        say(run_calibrate(CalibrateRequest(table, method, threshold, keep, judge, weights, run, output, overwrite)))
