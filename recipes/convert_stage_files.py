"""Write the model files of the package: from weight files of earlier versions, or anew with another card.

    git archive REVISION src/crossalign/models/weights | tar x -C OLD      # REVISION: the last with stage files
    python recipes/convert_stage_files.py recipes/models/*.json -i OLD/src/crossalign/models/weights
    python recipes/convert_stage_files.py recipes/models/NAME.json         # the card or the settings have changed

A recipe names the files of a model's stages, how they are combined and run, and its card; without `-i` the stages are
those of the model file that is written over. Tensors are copied bit by bit, in the precision that they have, by today's
names. A stage that a model named under `shares_stages_with` holds already is not written again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from crossalign.errors import CrossalignError
from crossalign.fields import settings_of
from crossalign.fusion.networks.model_files import FUSION
from crossalign.models.calibration import Calibration
from crossalign.models.card import Card
from crossalign.models.model import REGISTRATION
from crossalign.models.model_file import ModelContents, NetworkTask, StageContents, read_model_file, save_model_file
from crossalign.models.pretrained import WEIGHTS_FOLDER
from crossalign.models.recognition import RECOGNITION
from crossalign.models.run_settings import RunSettings

TASKS: dict[str, NetworkTask[Any]] = {"registration": REGISTRATION, "fusion": FUSION, "recognition": RECOGNITION}


def main() -> int:
    """Write each recipe's model file into the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", type=Path, nargs="+")
    parser.add_argument("-i", "--input", type=Path, help="folder of the stages' files")
    parser.add_argument("-o", "--output", type=Path, default=WEIGHTS_FOLDER)
    given = parser.parse_args()
    try:
        # Those that hold stages of their own first.
        recipes = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in given.recipes}
        for name in sorted(recipes, key=lambda name: bool(recipes[name].get("shares_stages_with"))):
            path = given.output / f"{name}.safetensors"
            files = [path] if given.input is None else [given.input / file for file in recipes[name]["stages"]]
            print(f"{name}: {write_model(recipes[name], files, path) / 1e6:.1f} MB")
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def write_model(recipe: dict[str, Any], files: list[Path], path: Path) -> int:
    """Write one model file from stages in files; return its size in bytes."""
    read = [read_model_file(file) for file in files]
    shared: dict[str, str] = {}
    for name in recipe.get("shares_stages_with", ()):
        other = read_model_file(path.with_name(f"{name}.safetensors"))
        shared |= {stage.sha256: other.path.name for stage in other.stages}
    calibration = recipe.get("calibration")
    contents = ModelContents(
        task=read[0].task,
        stages=[stage for file in read for stage in _stages(file)],
        arrangement=recipe.get("arrangement", 1),
        run=settings_of(RunSettings, recipe["run"]) if "run" in recipe else {},
        calibration=None if calibration is None else settings_of(Calibration, calibration),
        card=settings_of(Card, recipe["card"]),
        initial_stage=recipe.get("initial_stage", 1),
    )
    save_model_file(contents, path, overwrite=True, shared=shared)
    return path.stat().st_size


def _stages(file: ModelContents) -> list[StageContents]:
    task = TASKS[file.task]
    return [
        StageContents(
            {task.rename(name): value for name, value in stage.tensors.items()},
            settings_of(task.settings, stage.settings),
            stage.notes,
        )
        for stage in file.stages
    ]


if __name__ == "__main__":
    sys.exit(main())
