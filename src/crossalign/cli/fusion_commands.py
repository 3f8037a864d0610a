"""The commands of fusion: what they are called and what they take. Nothing heavy is imported until one of them runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crossalign.cli.options import Outcome

DeviceOption = Annotated[str, typer.Option(help="Where networks run: auto, cpu or cuda.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
MriArgument = Annotated[Path, typer.Argument(metavar="MRI", help="Structural image: NIfTI, NRRD or MetaImage.")]
PetArgument = Annotated[Path, typer.Argument(metavar="PET", help="Functional image, registered to the MRI.")]

FusedOption = Annotated[Path, typer.Option("--output", "-o", help="Volume to write; a .json goes beside it.")]
MethodOption = Annotated[str | None, typer.Option(help="Name of a fusion method.")]
EmphasisOption = Annotated[str | None, typer.Option(help="For networks: balanced (default) or detail.")]
RegisterOption = Annotated[bool, typer.Option("--register", help="Bring the PET to the MRI rigidly first.")]
TransformOption = Annotated[
    Path | None, typer.Option(help="Transform to write (.tfm): MRI points to PET points (with --register).")
]
ReportOption = Annotated[Path | None, typer.Option(help="HTML report to write.")]
ColourOption = Annotated[Path | None, typer.Option(help="Picture of the planes to write (.png).")]
UnitOption = Annotated[str, typer.Option(help="Unit of the PET's values, such as SUV: kept in the results.")]


def add_fusion_commands(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    """Add `fuse`, `evaluate-fusion` and `prepare-fusion` to the command line; `say` prints what they return."""
    _add_fuse(app, say)
    _add_evaluate(app, say)
    _add_prepare(app, say)


def _add_fuse(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    @app.command("fuse")
    def fuse_command(
        mri: MriArgument,
        pet: PetArgument,
        output: FusedOption,
        method: MethodOption = None,
        emphasis: EmphasisOption = None,
        register: RegisterOption = False,
        output_transform: TransformOption = None,
        report: ReportOption = None,
        colour: ColourOption = None,
        unit: UnitOption = "",
        device: DeviceOption = "auto",
        overwrite: OverwriteOption = False,
    ) -> None:
        """Fuse an MRI and a PET into one volume on the MRI's grid, in [0, 1]."""
        from crossalign.cli.fusing import FuseRequest, run_fuse

        looks = (report, colour, unit)
        what = (mri, pet, output, method, emphasis, register, output_transform)
        say(run_fuse(FuseRequest(*what, *looks, device, overwrite)))


def _add_evaluate(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    @app.command("evaluate-fusion")
    def evaluate_fusion_command(
        first: Annotated[Path, typer.Argument(metavar="MRI|MANIFEST", help="An MRI, or a CSV of case, mri, pet.")],
        method: Annotated[
            str, typer.Option(help="Methods, with commas between them; a network's emphasis after a colon.")
        ],
        output: Annotated[Path, typer.Option("--output", "-o", help="Table to write (.csv); a .md goes beside it.")],
        pet: Annotated[Path | None, typer.Argument(metavar="PET", help="The PET of an MRI.")] = None,
        split: Annotated[str, typer.Option(help="Pairs of the manifest to use: train, val, test or all.")] = "all",
        limit: Annotated[bool, typer.Option("--limit", help="Also optimise the voxels themselves for SSIM.")] = False,
        device: DeviceOption = "auto",
        overwrite: OverwriteOption = False,
    ) -> None:
        """Fuse registered pairs with several methods and score the results."""
        from crossalign.cli.evaluating_fusion import EvaluateFusionRequest, run_evaluate_fusion

        request = EvaluateFusionRequest(first, pet, method, output, split, limit, device, overwrite)
        say(run_evaluate_fusion(request))


def _add_prepare(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    @app.command("prepare-fusion")
    def prepare_fusion_command(
        first: Annotated[Path, typer.Argument(metavar="MRI|MANIFEST", help="An MRI, or a CSV of case, mri, pet.")],
        output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make, with a manifest of the results.")],
        pet: Annotated[Path | None, typer.Argument(metavar="PET", help="The PET of an MRI.")] = None,
        size: Annotated[int, typer.Option(min=16, help="Voxels on each side of the cube.")] = 128,
        affine: Annotated[
            bool,
            typer.Option("--affine", help="Bring the MRI to the template affinely: its size becomes the template's."),
        ] = False,
    ) -> None:
        """Register PET to MRI and MRI to the MNI152 template, crop to the head, and scale: the paper's preparation."""
        from crossalign.cli.preparing import PrepareRequest, run_prepare_fusion

        say(run_prepare_fusion(PrepareRequest(first, pet, output, size, affine)))
