"""The command of explanation: what it is called and what it takes. Nothing heavy is imported until it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crossalign.cli.options import Outcome


def add_explain_command(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    """Add `explain` to the command line; `say` prints what it returns."""

    @app.command("explain")
    def explain_command(
        fixed: Annotated[Path, typer.Argument(help="Fixed image (the MR): NIfTI, NRRD or MetaImage.")],
        moving: Annotated[Path, typer.Argument(help="Moving image (the ultrasound).")],
        output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the maps, tables and report.")],
        initial: Annotated[
            str | None,
            typer.Option(
                help="Start, fixed to moving: a transform file, 'header', 'center' (of both grids) or 'mask-center'; "
                "chosen by the headers where it is left out."
            ),
        ] = None,
        method: Annotated[
            str | None, typer.Option(help="Shipped weights by name, or weight files joined with +.")
        ] = None,
        fixed_mask: Annotated[
            Path | None, typer.Option(help="Structure that matters (the prostate), in the fixed image's space.")
        ] = None,
        mask_label: Annotated[
            str | None, typer.Option(help="The label of --fixed-mask that marks it, where it holds several.")
        ] = None,
        point: Annotated[
            list[str] | None, typer.Option(help="X,Y,Z of a point of the fixed image, LPS mm; may be given again.")
        ] = None,
        point_name: Annotated[
            list[str] | None, typer.Option(help="Name of a point in the landmark file; may be given again.")
        ] = None,
        landmarks: Annotated[
            Path | None, typer.Option(help="CSV with a name and x, y, z in the fixed image, LPS mm.")
        ] = None,
        steps: Annotated[int, typer.Option(min=1, help="Steps of the integrated gradients.")] = 32,
        figure: Annotated[bool, typer.Option("--figure", help="Also draw the last stage's planes (.png).")] = False,
        device: Annotated[str, typer.Option(help="Where networks run: auto, cpu or cuda.")] = "auto",
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    ) -> None:
        """Show what a registration network looked at: attention, points, and what each parameter rests on."""
        from crossalign.cli.explaining import ExplainRequest, run_explain

        request = ExplainRequest(
            fixed=fixed,
            moving=moving,
            initial=initial,
            output=output,
            method=method,
            fixed_mask=fixed_mask,
            mask_label=mask_label,
            points=tuple(point or ()),
            point_names=tuple(point_name or ()),
            landmarks=landmarks,
            steps=steps,
            figure=figure,
            device=device,
            overwrite=overwrite,
        )
        say(run_explain(request))
