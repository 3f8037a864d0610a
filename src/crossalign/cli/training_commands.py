"""The commands that make pairs and train on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crossalign.cli.options import Outcome


def add_training_commands(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    """Add `simulate` and `train` to the command line; `say` prints what they return."""
    _add_simulate(app, say)
    _add_train(app, say)


def _add_simulate(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    @app.command("simulate")
    def simulate_command(
        count: Annotated[int, typer.Argument(help="How many pairs.")],
        output: Annotated[
            Path, typer.Option("--output", "-o", help="Folder to make: manifest.csv and a folder a pair.")
        ],
        seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
        split: Annotated[str, typer.Option(help="What the manifest calls them: train, val or test.")] = "test",
    ) -> None:
        """Write simulated MR-ultrasound pairs whose truth is known, with their manifest."""
        from crossalign.cli.simulating import run_simulate

        say(run_simulate(count, seed, output, split))


def _add_train(app: typer.Typer, say: Callable[[Outcome], None]) -> None:
    @app.command("train")
    def train_command(
        output: Annotated[
            Path, typer.Option("--output", "-o", help="Folder of the run; one that was cut off goes on.")
        ],
        manifest: Annotated[
            Path | None, typer.Argument(help="CSV file of the cases; its train and val splits.")
        ] = None,
        simulate: Annotated[int, typer.Option(help="Train on this many simulated pairs instead.")] = 0,
        model: Annotated[
            str | None,
            typer.Option(
                help="attention-reg (the default), feature-reg, correspondence, msreg, msreg-published or dvnet "
                "(a stand-in); or that of --from."
            ),
        ] = None,
        start_sre: Annotated[
            str, typer.Option(help="SRE of the starts in mm: 0-20 for stage 1, 0-8 for stage 2.")
        ] = "0-20",
        steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 4000,
        batch: Annotated[int, typer.Option(help="Pairs in a step.")] = 16,
        rate: Annotated[float, typer.Option(help="Top learning rate.")] = 1e-3,
        loss: Annotated[
            str, typer.Option(help="auto, sre, parameters (the papers') or guided (for correspondence).")
        ] = "auto",
        schedule: Annotated[str, typer.Option(help="cosine, or paper.")] = "cosine",
        crop_shape: Annotated[
            str | None, typer.Option(help="Voxels that the network sees, z,y,x: 32,32,32, or those of --from.")
        ] = None,
        crop_spacing: Annotated[float | None, typer.Option(help="Their spacing, mm: 2.5, or that of --from.")] = None,
        fixed_input: Annotated[
            str | None, typer.Option(help="image (the default) or label (the gland's mask); or that of --from.")
        ] = None,
        val_every: Annotated[int, typer.Option(help="Steps between validations, each of which is a checkpoint.")] = 250,
        val_starts: Annotated[int, typer.Option(help="Fixed starts for each validation case.")] = 5,
        average: Annotated[
            float, typer.Option(help="Decay of the running mean of the weights, which is kept; 0 keeps the last.")
        ] = 0.995,
        precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
        seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
        augmentation: Annotated[
            str, typer.Option(help="How far training pairs are varied: none, usual or strong (for few pairs).")
        ] = "usual",
        mirror: Annotated[str, typer.Option(help="Axes along which half of them are flipped: x is left-right.")] = "x",
        initial: Annotated[
            str | None,
            typer.Option(
                "--from", help="Stage to start from: a file, or shipped weights (NAME, or NAME:2 for stage 2)."
            ),
        ] = None,
        pretrained: Annotated[
            Path | None, typer.Option(help="Extractors to start from, of `crossalign pretrain`.")
        ] = None,
        patients: Annotated[float, typer.Option(help="Share of the training patients to use, over 0 to 1.")] = 1.0,
        shapes_share: Annotated[
            float, typer.Option(help="Share of the simulated pairs that show random shapes in any two modalities.")
        ] = 0.0,
        recombine: Annotated[
            int, typer.Option(help="Also make this many pairs from the training cases' images, bent to new shapes.")
        ] = 0,
        header_turn: Annotated[
            int, typer.Option(help="Turn about z, degrees, that mends all headers: 0, 90, 180 or 270.")
        ] = 0,
        minutes: Annotated[float, typer.Option(help="Stop this call after so long; 0 is never.")] = 0.0,
        device: Annotated[str, typer.Option(help="Where to train: auto, cpu or cuda.")] = "auto",
    ) -> None:
        """Train one stage; the weights with the lowest validation SRE are kept."""
        from crossalign.cli.beginning import begin_stage
        from crossalign.cli.training import TrainRequest, run_train
        from crossalign.training import TrainingSettings

        stage, begun = begin_stage(initial, model, crop_shape, crop_spacing, fixed_input)
        settings = TrainingSettings(
            steps=steps,
            batch=batch,
            rate=rate,
            loss=loss,
            schedule=schedule,
            val_every=val_every,
            val_initialisations=val_starts,
            ema_decay=average,
            precision=precision,
            seed=seed,
        )
        request = TrainRequest(
            output,
            manifest,
            simulate,
            stage,
            settings,
            start_sre,
            ",".join(map(str, stage.crop_shape)),
            begun,
            augmentation,
            mirror,
            minutes,
            device,
            pretrained,
            patients,
            shapes_share,
            recombine,
            header_turn,
        )
        say(run_train(request))
