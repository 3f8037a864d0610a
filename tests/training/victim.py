"""A training run in a process of its own, for a test to kill: python -m tests.training.victim FOLDER."""

import sys
from pathlib import Path

import torch
from tests.training.toys import make_dataset

# Imported by the test as well, so that both runs have the same settings.
from tests.training.trained import SETTINGS

from crossalign.training import RegistrationTask, run_task


def say(row: dict[str, float]) -> None:
    sys.stdout.write(f"{row['step']:.0f}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_task(RegistrationTask(make_dataset(6, 1), make_dataset(3, 2), SETTINGS), Path(sys.argv[1]), watch=say)
