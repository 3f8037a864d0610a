"""The commands: what they are called and what they take. Nothing heavy is imported until one of them runs."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossalign.cli.explain_command import add_explain_command
from crossalign.cli.fusion_commands import add_fusion_commands
from crossalign.cli.fusion_training import train_fusion_command
from crossalign.cli.model_commands import RunOption, add_model_commands
from crossalign.cli.pretraining import pretrain_command
from crossalign.cli.training_commands import add_training_commands
from crossalign.errors import CrossalignError, InputWarning

if TYPE_CHECKING:
    from crossalign.cli.options import Outcome

USAGE_STATUS, FAILURE_STATUS, INTERRUPTED_STATUS = 2, 1, 130

app = typer.Typer(
    name="crossalign",
    help="Registers a 3-D MR to an ultrasound. Research software, not a medical device.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DeviceOption = Annotated[str, typer.Option(help="Where networks run: auto, cpu or cuda.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 2 for what the user can mend, 1 for any other failure, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    words = [word for word in given if word != "--debug"] or ["--help"]
    try:
        with _printed_warnings():
            status = app(words, prog_name="crossalign", standalone_mode=False)
    except CrossalignError as error:
        return _fail(str(error), USAGE_STATUS, debug)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED_STATUS, debug)
    except Exception as error:  # noqa: BLE001 - the last frame before the user
        explain = getattr(error, "format_message", None)  # typer's own, about the options
        if explain is not None:
            return _fail(f"{explain()} (see crossalign --help)", USAGE_STATUS, debug)
        hint = "" if debug else " (run again with --debug for the traceback)"
        return _fail(f"unexpected {type(error).__name__}: {error}{hint}", FAILURE_STATUS, debug)
    return status if isinstance(status, int) else 0


@contextmanager
def _printed_warnings() -> Iterator[None]:
    """Print what the readers warn of (InputWarning) as the command's other warnings are, each text once."""
    seen: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        issue = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if not issubclass(category, InputWarning):
                issue(message, category, *place)
            elif str(message) not in seen:
                seen.add(str(message))
                typer.echo(f"crossalign: warning: {' '.join(str(message).split())}", err=True)

        warnings.showwarning = tell  # type: ignore[assignment]
        yield


def _fail(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    typer.echo(f"crossalign: error: {' '.join(message.split())}", err=True)
    return status


def _say(outcome: Outcome) -> None:
    for line in outcome.lines:
        typer.echo(line)
    for warning in outcome.warnings:
        typer.echo(f"crossalign: warning: {warning}", err=True)


def _version(wanted: bool) -> bool:
    if wanted:
        from crossalign import __version__

        typer.echo(f"crossalign {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error; goes anywhere.")] = False,
) -> None:
    """Take the options that every command has; `main` looks at --debug itself."""


@app.command("register")
def register_command(
    fixed: Annotated[Path, typer.Argument(help="Fixed image (the MR): NIfTI, NRRD or MetaImage.")],
    moving: Annotated[Path, typer.Argument(help="Moving image (the ultrasound).")],
    initial: Annotated[
        str,
        typer.Option(help="Start, fixed to moving: an ITK transform file, 'center' (of both grids) or 'mask-center'."),
    ],
    output_transform: Annotated[
        Path, typer.Option(help="Transform to write (.tfm): fixed points to moving points, LPS mm.")
    ],
    fixed_mask: Annotated[
        Path | None, typer.Option(help="Structure that matters (the prostate), on the fixed grid.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="A name that `crossalign models` lists, or weight files joined with +.")
    ] = None,
    moved: Annotated[Path | None, typer.Option(help="Image to write: the moving image on the fixed grid.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="True transform: prints the SRE before and after (needs --fixed-mask).")
    ] = None,
    starts: Annotated[
        int | None, typer.Option(min=1, help="Starts that a network answers from and that are averaged.")
    ] = None,
    search: Annotated[
        bool | None, typer.Option("--search/--no-search", help="Look for a start up to 30 mm away first.")
    ] = None,
    header_turn: Annotated[
        str | None,
        typer.Option(help="Turn about z, degrees, that mends both headers: 0, 90, 180, 270, or auto to find out."),
    ] = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Find where the points of the FIXED image lie in the MOVING image."""
    from crossalign.cli.registering import RegisterRequest, run_register

    request = RegisterRequest(
        fixed=fixed,
        moving=moving,
        initial=initial,
        output_transform=output_transform,
        fixed_mask=fixed_mask,
        method=method,
        moved=moved,
        report=report,
        reference=reference,
        starts=starts,
        search=search,
        header_turn=header_turn,
        device=device,
        overwrite=overwrite,
    )
    _say(run_register(request))


@app.command("apply")
def apply_command(
    transform: Annotated[Path, typer.Argument(help="Transform file, fixed points to moving points.")],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Moving image or label map, or points (.csv).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    reference: Annotated[Path | None, typer.Option(help="Fixed image: the grid of the output (images only).")] = None,
    label: Annotated[bool, typer.Option("--label", help="INPUT is a label map: take the nearest voxel.")] = False,
    direction: Annotated[
        str | None, typer.Option(help="For points: fixed-to-moving (the default) or moving-to-fixed.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Bring a moving image onto the fixed grid, or map points (CSV with columns x, y, z in LPS mm, and name)."""
    from crossalign.cli.applying import ApplyRequest, run_apply

    _say(run_apply(ApplyRequest(transform, source, output, reference, label, direction, overwrite)))


@app.command("demo")
def demo_command(
    output: Annotated[Path, typer.Option(help="Folder to make; numbered where it exists.")] = Path("crossalign-demo"),
    device: DeviceOption = "auto",
) -> None:
    """Simulate an MR-ultrasound pair, register it, and write the pair, the result and a report."""
    from crossalign.cli.demonstrating import run_demo

    _say(run_demo(output, device))


@app.command("evaluate")
def evaluate_command(
    manifest: Annotated[Path, typer.Argument(help="CSV file of the cases.")],
    method: Annotated[str, typer.Option(help="Methods, a comma between two; NAME=METHOD names the row.")],
    starts: Annotated[str, typer.Option(help="SRE of the starts in mm, such as 8,16,0-20.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write (.csv); summaries go beside it.")],
    split: Annotated[str, typer.Option(help="Cases to use: train, val, test or all.")] = "test",
    count: Annotated[int, typer.Option(min=1, help="Starts for each case and range.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed of the starts.")] = 0,
    figures: Annotated[bool, typer.Option("--figures", help="Also draw box plots and failure curves.")] = False,
    run: RunOption = "",
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Measure methods on cases whose answer is known, from starts of the papers' protocol."""
    from crossalign.cli.evaluating import EvaluateRequest, run_evaluate

    request = EvaluateRequest(
        manifest,
        method,
        starts,
        output,
        split,
        count,
        seed,
        device=device,
        overwrite=overwrite,
        figures=figures,
        run=run,
    )
    _say(run_evaluate(request))


add_training_commands(app, _say)
add_model_commands(app, _say)
add_explain_command(app, _say)
add_fusion_commands(app, _say)
app.command("train-fusion")(train_fusion_command)
app.command("pretrain")(pretrain_command)
