"""The commands: what they are called and what they take. Nothing heavy is imported until one of them runs."""

from __future__ import annotations

import os
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
from crossalign.cli.signals import Stopped, stoppable
from crossalign.cli.strict import strict_values
from crossalign.cli.terminal import close_output, print_lines, print_note
from crossalign.cli.training_commands import add_training_commands
from crossalign.errors import CrossalignError, InputWarning
from crossalign.output import reason

if TYPE_CHECKING:
    from crossalign.cli.options import Outcome

USAGE_STATUS, FAILURE_STATUS, CLOSED_PIPE_STATUS = 2, 1, 141
NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "bad allocation", "bad_alloc")

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
    """Run the command line; return its exit status.

    0, 2 for what the user can mend, 3 for a result that is not to be trusted (`register --strict`), 1 for any other
    failure, 128 and the signal's number when stopped by one (130 for
    Ctrl-C, 143 for SIGTERM), 141 where standard output was closed by its reader.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    words = [word for word in given if word != "--debug"] or ["--help"]
    try:
        with stoppable(), _printed_warnings():
            status = app(words, prog_name="crossalign", standalone_mode=False)
    except Stopped as stop:
        return _fail(stop.text(), stop.status(), debug)
    except (BrokenPipeError, SystemExit):  # typer exits by itself for this alone
        close_output()
        return CLOSED_PIPE_STATUS
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130, debug)
    except Exception as error:  # noqa: BLE001 - the last frame before the user
        return _fail(*_explained(error, debug), debug)
    return status if isinstance(status, int) else 0


def _explained(error: Exception, debug: bool) -> tuple[str, int]:
    """Return what to say of an error, and the exit status."""
    if isinstance(error, CrossalignError):
        return str(error), USAGE_STATUS
    explain = getattr(error, "format_message", None)  # typer's own, about the options
    if explain is not None:
        return f"{explain()} (see crossalign --help)", USAGE_STATUS
    if isinstance(error, OSError):
        what = "a file" if error.filename is None else os.fsdecode(error.filename)
        return f"{what}: cannot be read or written: {reason(error)}", USAGE_STATUS
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY):
        advice = "close other programs, crop or resample the images, or use a larger machine"
        return f"there is not enough memory for this: {advice}", USAGE_STATUS
    hint = "" if debug else " (run again with --debug for the traceback)"
    return f"unexpected {type(error).__name__}: {error}{hint}", FAILURE_STATUS


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
                print_note("warning", str(message))

        warnings.showwarning = tell  # type: ignore[assignment]
        yield


def _fail(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print_note("error", message)
    return status


def _say(outcome: Outcome) -> None:
    print_lines(outcome.lines)
    for warning in outcome.warnings:
        print_note("warning", warning)


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
    output_transform: Annotated[
        Path, typer.Option(help="Transform to write (.tfm): fixed points to moving points, LPS mm.")
    ],
    initial: Annotated[
        str | None,
        typer.Option(
            help="Start, fixed to moving: a transform file, 'header' (both headers are believed), 'center' (of both "
            "grids) or 'mask-center'. Left out: header where the scans overlap by it, otherwise a centre."
        ),
    ] = None,
    fixed_mask: Annotated[
        Path | None, typer.Option(help="Structure that matters (the prostate), in the fixed image's space.")
    ] = None,
    mask_label: Annotated[
        str | None, typer.Option(help="The label of --fixed-mask that marks it, where it holds several.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="A name that `crossalign models` lists, or weight files joined with +.")
    ] = None,
    moved: Annotated[Path | None, typer.Option(help="Image to write: the moving image on the fixed grid.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    record: Annotated[
        Path | None, typer.Option("--json", help="JSON file to write: the result, and whether to trust it.")
    ] = None,
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
    strict: Annotated[
        bool, typer.Option("--strict", help="End with status 3 where the result is not to be trusted.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> int:
    """Find where the points of the FIXED image lie in the MOVING image."""
    from crossalign.cli.registering import RegisterRequest, run_register

    request = RegisterRequest(
        fixed=fixed,
        moving=moving,
        initial=initial,
        output_transform=output_transform,
        fixed_mask=fixed_mask,
        mask_label=mask_label,
        method=method,
        moved=moved,
        report=report,
        record=record,
        reference=reference,
        starts=starts,
        search=search,
        header_turn=header_turn,
        device=device,
        strict=strict,
        overwrite=overwrite,
    )
    outcome = run_register(request)
    _say(outcome)
    return outcome.status


@app.command("apply")
def apply_command(
    transform: Annotated[
        str, typer.Argument(help="Transform file, fixed points to moving points; or 'identity': none, headers alone.")
    ],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Image or label map, or points (.csv, Slicer's).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    reference: Annotated[
        Path | None, typer.Option(help="Image whose grid the output gets: the fixed one; see --direction. For images.")
    ] = None,
    label: Annotated[bool, typer.Option("--label", help="INPUT is a label map: take the nearest voxel.")] = False,
    direction: Annotated[
        str | None,
        typer.Option(
            help="fixed-to-moving: INPUT is of the fixed image, the output of the moving one (default for points); "
            "moving-to-fixed: the other way round (default for images)."
        ),
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option(help="Value outside the image, or nan; by default what it means by nothing (padding, air, 0)."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Bring an image onto the other image's grid, or map points (CSV with columns x, y, z in LPS mm, and name)."""
    from crossalign.cli.applying import ApplyRequest, run_apply

    _say(run_apply(ApplyRequest(transform, source, output, reference, label, direction, fill, overwrite)))


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
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Starts for each case and range.")] = 40,
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
strict_values(app)
