"""Settings of the tests' short runs, and what such a run leaves, to compare with another's."""

from pathlib import Path

from safetensors.torch import load_file
from tests.training.toys import TINY
from torch import Tensor

from crossalign.training import TrainingSettings
from crossalign.training.run_folder import read_history

SETTINGS = TrainingSettings(
    stage=TINY,
    steps=15,
    batch=4,
    val_every=4,
    val_initialisations=2,
    initial_sre_mm=(0.0, 10.0),
    precision="float32",
    seed=3,
)


def left_by(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the best stage and of the checkpoint: weights, running mean, optimizer."""
    return {
        f"{name}/{key}": value
        for name in ("best", "last")
        for key, value in load_file(folder / f"{name}.safetensors").items()
    }


def rows_of(folder: Path) -> list[tuple[float, ...]]:
    """The history without its clock."""
    return [(row["step"], row["loss"], row["rate"], row["val_sre_mm"]) for row in read_history(folder / "history.csv")]
