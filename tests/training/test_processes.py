"""Two processes that talk by gloo train as one: the same curve, resumed bit for bit, and safe when one is killed."""

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.toys import make_dataset
from tests.training.trained import SETTINGS, left_by, rows_of

from crossalign.cli.distribution import distributed
from crossalign.cli.signals import Stopped
from crossalign.errors import InputError
from crossalign.training import RegistrationTask, RunResult, run_task
from crossalign.training.checkpoint import read_checkpoint
from crossalign.training.distributed import ProcessLostError
from crossalign.training.processes import Part, Processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # each start loads torch twice

TOLERANCE = 1e-3  # of losses and of the measure, mm; measured: 1e-4


class Request:
    """What the work below does."""

    def __init__(self, folder: Path, kill_at: int = 0, interrupted: int | None = None) -> None:
        self.folder, self.kill_at, self.interrupted = folder, kill_at, interrupted


class _Killed(RegistrationTask):
    """One that ends its process ahead of a step, and the other process lives on; or interrupts the command."""

    def __init__(self, request: Request, last: bool) -> None:
        super().__init__(make_dataset(6, 1), make_dataset(3, 2), SETTINGS)
        self._request, self._last = request, last

    def loss_of_part(self, model: torch.nn.Module, step: int, part: Part) -> torch.Tensor:
        if self._last and step == self._request.kill_at > 0:
            victim = self._request.interrupted
            os.kill(victim or os.getpid(), signal.SIGINT if victim else signal.SIGKILL)
        return super().loss_of_part(model, step, part)


def work(request: Request, processes: Processes, _device: torch.device) -> RunResult:
    torch.set_num_threads(1)
    return run_task(_Killed(request, not processes.is_first()), request.folder, processes=processes)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run in one process, and one in two."""
    folder = tmp_path_factory.mktemp("processes")
    run_task(RegistrationTask(make_dataset(6, 1), make_dataset(3, 2), SETTINGS), folder / "one")
    result = distributed(work, Request(folder / "two"), "cpu", 2)
    assert result is not None
    assert result.finished
    return folder / "one", folder / "two"


def test_two_processes_have_the_curve_of_one(both: tuple[Path, Path]) -> None:
    one, two = map(rows_of, both)
    assert len(one) == len(two) == 4
    for mine, theirs in zip(one, two, strict=True):
        assert mine == pytest.approx(theirs, abs=TOLERANCE)
    weights, others = map(left_by, both)
    assert weights.keys() == others.keys()  # so that either goes on in the other's place


def test_a_killed_process_ends_the_run_which_goes_on_bit_for_bit(both: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ProcessLostError, match="process 1 of the training was ended by SIGKILL: the same"):
        distributed(work, Request(tmp_path / "run", kill_at=10), "cpu", 2)
    assert read_checkpoint(tmp_path / "run" / "last.safetensors").progress.step == 8
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    result = distributed(work, Request(tmp_path / "run"), "cpu", 2)
    assert result is not None
    assert result.finished
    resumed, whole = left_by(tmp_path / "run"), left_by(both[1])
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []
    # In another number of processes it goes on with the same curve, as the batch is the same.
    assert run_task(RegistrationTask(make_dataset(6, 1), make_dataset(3, 2), SETTINGS), tmp_path / "alone").finished
    for mine, theirs in zip(rows_of(both[0]), rows_of(tmp_path / "alone"), strict=True):
        assert mine == pytest.approx(theirs, abs=TOLERANCE)


def test_ctrl_c_ends_every_process_and_leaves_the_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = children()
    with pytest.raises(Stopped) as stopped:
        distributed(work, Request(tmp_path / "run", kill_at=10, interrupted=os.getpid()), "cpu", 2)
    assert stopped.value.status() == 128 + signal.SIGINT
    assert read_checkpoint(tmp_path / "run" / "last.safetensors").progress.step == 8
    assert "Traceback" not in capfd.readouterr().err
    assert children() <= before


def children() -> set[str]:
    """Return the processes that this one has started and that work in a training."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = status.read_text().partition(" (")
            state, parent = rest.rpartition(") ")[2].split()[:2]
            command = (status.parent / "cmdline").read_text()
            if int(parent) == os.getpid() and state != "Z" and "spawn_main" in command:
                found.add(number)
    return found


def test_a_batch_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="a batch of 4 for 5 processes"):
        Part.of(4, 0, 5)


@given(st.integers(1, 60), st.integers(1, 8))
def test_parts_are_the_batch_and_their_weights_make_its_mean(size: int, processes: int) -> None:
    if size < processes:
        return
    parts = [Part.of(size, rank, processes) for rank in range(processes)]
    values = torch.arange(size, dtype=torch.float64) ** 2
    taken = [values[part.samples()] for part in parts]
    assert torch.equal(torch.cat(taken), values)
    mean = sum(float(some.mean()) * part.weight() for some, part in zip(taken, parts, strict=True)) / processes
    assert mean == pytest.approx(float(values.mean()))
