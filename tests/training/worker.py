"""A training in one of several processes, or in one: torchrun -m tests.training.worker FOLDER [BATCH]."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from tests.training.toys import make_dataset
from tests.training.trained import SETTINGS

from crossalign.training import RegistrationTask, run_task
from crossalign.training.distributed import join_processes


def say(row: dict[str, float]) -> None:
    sys.stdout.write(f"{row['step']:.0f}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    processes, _ = join_processes(torch.device("cpu"))
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else SETTINGS.batch
    task = RegistrationTask(make_dataset(6, 1), make_dataset(3, 2), replace(SETTINGS, batch=batch))
    run_task(task, Path(sys.argv[1]), watch=say, processes=processes)
