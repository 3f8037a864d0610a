"""What `crossalign train` starts from: a stage's settings and weights, by file or by the name of shipped ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crossalign.cli.runs import parse_crop
from crossalign.errors import InputError
from crossalign.models import StageSettings, load_stage
from crossalign.networks import build_network


def begin_stage(
    initial: str | None,
    model: str | None,
    crop_shape: str | None,
    crop_spacing_mm: float | None,
    fixed_input: str | None,
) -> tuple[StageSettings, Path | None]:
    """Return the settings of the stage to train, and the file that it starts from.

    What is None is that of the stage that it starts from, or the default without one. `initial` is a weight file, a
    shipped name, or NAME:2 for one of several stages. Raises InputError or WeightsError.
    """
    begun = None if initial is None else load_stage(initial)
    settings = StageSettings() if begun is None else begun.settings
    given = {"network": model, "crop_spacing_mm": crop_spacing_mm, "fixed_input": fixed_input}
    known: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if crop_shape is not None:
        known["crop_shape"] = parse_crop(crop_shape)
    settings = replace(settings, **known)  # type: ignore[arg-type]
    if begun is not None:
        fresh = build_network(settings.network, settings.crop_shape, settings.crop_spacing_mm)
        try:
            fresh.load_state_dict(begun.network.state_dict())
        except RuntimeError as error:
            shape = ",".join(map(str, begun.settings.crop_shape))
            raise InputError(
                f"--from {initial} is a '{begun.settings.network}' network for crops of {shape} voxels, whose weights do "
                f"not fit '{settings.network}' for {','.join(map(str, settings.crop_shape))}: leave out --model and "
                "--crop-shape, or start afresh"
            ) from error
    return settings, None if initial is None else Path(initial)
