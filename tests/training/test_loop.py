"""The loop: interrupted anywhere and resumed it ends as if nothing had happened, and it learns."""

import contextlib
import csv
import itertools
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import REPOSITORY
from tests.training.toys import TINY, make_dataset
from tests.training.trained import SETTINGS, left_by, rows_of

from crossalign.errors import InputError, OutputError, WeightsError
from crossalign.models import StageSettings, load_stage
from crossalign.models.tensor_files import save_tensors
from crossalign.training import Augmentation, RegistrationTask, RunResult, TrainingSettings, engine, run_task
from crossalign.training.checkpoint import read_checkpoint
from crossalign.training.run_folder import COLUMNS, read_history
from crossalign.training.sampling import draw_batch
from crossalign.training.schedule import pick_cases, step_seed
from crossalign.training.tasks import registration as loop
from crossalign.training.tasks.registration import PAPER_DROPS

TRAIN, VAL = make_dataset(6, 1), make_dataset(3, 2)
Watch = Callable[[dict[str, float]], None]


def train(folder: Path, settings: TrainingSettings = SETTINGS, watch: Watch | None = None) -> RunResult:
    return run_task(RegistrationTask(TRAIN, VAL, settings), folder, watch=watch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a run that nothing interrupted."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    result = train(folder)
    assert result.finished
    assert result.steps == SETTINGS.steps
    return folder


def same(folder: Path, other: Path) -> bool:
    mine, theirs = left_by(folder), left_by(other)
    different = [name for name in theirs if name not in mine or not torch.equal(mine[name], theirs[name])]
    assert different == []
    assert rows_of(folder) == rows_of(other)
    return list(mine) == list(theirs)


class StopError(Exception):
    """Thrown at the loop from outside."""


def stop_at(step: int) -> Watch:
    def watch(row: dict[str, float]) -> None:
        if row["step"] == step:
            raise StopError

    return watch


def test_what_a_run_leaves(whole: Path) -> None:
    names = {"settings.json", "last.safetensors", "previous.safetensors", "best.safetensors", "history.csv"}
    assert {path.name for path in whole.iterdir()} == names | {"tensorboard"}
    assert json.loads((whole / "settings.json").read_text())["stage"]["network"] == "attention-reg"
    assert [row["step"] for row in read_history(whole / "history.csv")] == [4, 8, 12, 15]
    best = load_stage(whole / "best.safetensors")
    assert best.settings == TINY
    lowest = min(row["val_sre_mm"] for row in read_history(whole / "history.csv"))
    assert float(best.notes["val_sre_mm"]) == pytest.approx(lowest, abs=6e-4)
    assert json.loads(best.notes["training"])["seed"] == 3
    assert list((whole / "tensorboard").iterdir())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(999)  # the global generator is nobody's business
    train(tmp_path / "again")
    assert same(tmp_path / "again", whole)
    train(tmp_path / "other", replace(SETTINGS, seed=4))
    assert not torch.equal(
        left_by(tmp_path / "other")["last/model/head.linear3.bias"], left_by(whole)["last/model/head.linear3.bias"]
    )


@pytest.mark.parametrize("steps", [(1,), (3,), (4,), (5, 9), (8, 8), (14,), (15,), (2, 6, 7, 11, 13)])
def test_resumed_after_exceptions(steps: tuple[int, ...], whole: Path, tmp_path: Path) -> None:
    for step in steps:
        with contextlib.suppress(StopError):
            train(tmp_path / "run", watch=stop_at(step))
    assert train(tmp_path / "run").finished
    assert same(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("module", "broken", "call"),
    [(loop, "save_stage", 1), (engine, "save_checkpoint", 1), (engine, "save_checkpoint", 3)],
)
def test_resumed_after_a_failure_while_writing(
    module: ModuleType, broken: str, call: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the best file, the history's row and the checkpoint; and the disk may be full."""
    calls = []
    real = getattr(module, broken)

    def fails_later(*args: object, **kwargs: object) -> None:
        calls.append(1)
        if len(calls) == call:
            raise OSError("no space left on device")
        real(*args, **kwargs)

    monkeypatch.setattr(module, broken, fails_later)
    with pytest.raises(OSError, match="no space left"):
        train(tmp_path)
    train(tmp_path)
    assert same(tmp_path, whole)


def test_resumed_between_the_checkpoint_and_the_history(whole: Path, tmp_path: Path) -> None:
    """A row cut short by a kill is dropped, and rows that the checkpoint does not know of are written again."""
    with pytest.raises(StopError):
        train(tmp_path, watch=stop_at(9))
    with (tmp_path / "history.csv").open("a") as file:
        file.write("12,1.5,0.001,3,4,5\n13,1.")
    train(tmp_path)
    assert same(tmp_path, whole)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(COLUMNS)
    assert [row[0] for row in rows[1:]] == ["4", "8", "12", "15"]


@pytest.mark.parametrize("pace", [1, 3, 7])
def test_resumed_after_its_minutes_were_over(
    pace: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short the calls, each goes on from where the last one stopped, between validations too."""
    now = [0.0]
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def tick(_: dict[str, float]) -> None:
        now[0] += 60.0

    results: list[RunResult] = []
    while not results or not results[-1].finished:
        results.append(run_task(RegistrationTask(TRAIN, VAL, SETTINGS), tmp_path, float(pace), tick))
    assert [r.steps for r in results] == [min(pace * (n + 1), 15) for n in range(math.ceil(15 / pace))]
    assert 10 * 60 < results[-1].seconds <= 15 * 60  # the last tick before a checkpoint is not in it
    assert math.isinf(results[0].measure) == (pace < SETTINGS.val_every)
    assert same(tmp_path, whole)


def test_resumed_after_a_kill(whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.victim", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 10:
                process.send_signal(signal.SIGKILL)
                break
        process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "last.safetensors").progress.step in (8, 12)
    train(tmp_path)
    assert same(tmp_path, whole)


def test_resumed_in_bfloat16(tmp_path: Path) -> None:
    stage = replace(TINY, crop_shape=(12, 12, 12))
    coarse = replace(SETTINGS, stage=stage, precision="bfloat16", steps=6, val_every=2)
    train(tmp_path / "whole", coarse)
    with pytest.raises(StopError):
        train(tmp_path / "run", coarse, stop_at(3))
    train(tmp_path / "run", coarse)
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(whole: Path, tmp_path: Path) -> None:
    short = replace(SETTINGS, steps=4)
    first = train(tmp_path, short)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    again = train(tmp_path, short, stop_at(1))
    assert again.finished
    assert (again.measure, again.baseline, again.steps) == (first.measure, first.baseline, 4)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    "change",
    [{"steps": 30}, {"seed": 4}, {"stage": replace(TINY, network="feature-reg")}, {"augmentation": Augmentation(1.0)}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_refused(change: dict[str, object], whole: Path) -> None:
    before = left_by(whole)
    with pytest.raises(OutputError, match="holds a run with other settings: name another folder"):
        train(whole, replace(SETTINGS, **change))  # type: ignore[arg-type]
    after = left_by(whole)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(read_history(whole / "history.csv")) == 4


def test_whole_numbers_are_the_same_settings(whole: Path, tmp_path: Path) -> None:
    """A range written (0, 10) and one written (0.0, 10.0) are one."""
    progress = vars(read_checkpoint(whole / "last.safetensors").progress)
    progress["settings"] = progress["settings"].replace("10.0", "10")
    assert progress["settings"] != read_checkpoint(whole / "last.safetensors").progress.settings
    tensors = load_file(whole / "last.safetensors")
    save_tensors(tensors, {"progress": json.dumps(progress)}, tmp_path / "last.safetensors")
    (tmp_path / "best.safetensors").write_bytes((whole / "best.safetensors").read_bytes())
    assert train(tmp_path, watch=stop_at(1)).finished


@pytest.mark.parametrize("how", ["truncated", "text", "foreign", "optimizer lost", "optimizer misshapen"])
def test_damaged_checkpoints_are_refused(how: str, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    data = (whole / "last.safetensors").read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "text":
        path.write_text("step 15")
    elif how == "foreign":
        save_file({"a": torch.zeros(3)}, path)
    else:
        progress = {"progress": json.dumps(vars(read_checkpoint(whole / "last.safetensors").progress))}
        tensors = load_file(whole / "last.safetensors")
        if how == "optimizer lost":
            tensors = {name: value for name, value in tensors.items() if not name.startswith("optimizer/0/")}
        else:
            tensors["optimizer/0/exp_avg"] = torch.zeros(5)
        save_tensors(tensors, progress, path)
    damaged = path.read_bytes()
    with pytest.raises(WeightsError, match=r"last\.safetensors: not a checkpoint of this run"):
        train(tmp_path)
    assert path.read_bytes() == damaged


def test_divergence_is_an_error_and_no_best_file_is_left(tmp_path: Path) -> None:
    bad = make_dataset(6, 1)
    bad.moving.fill_(math.nan)
    with pytest.raises(InputError, match="diverged at step 1: the loss is nan"):
        run_task(RegistrationTask(bad, VAL, SETTINGS), tmp_path)
    assert not (tmp_path / "best.safetensors").exists()
    with pytest.raises(InputError, match="diverged"):
        run_task(RegistrationTask(bad, VAL, SETTINGS), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_initial_weights_are_where_it_starts(whole: Path, tmp_path: Path) -> None:
    trained = load_stage(whole / "best.safetensors").network
    model = RegistrationTask(TRAIN, VAL, SETTINGS, trained).fresh_model()
    for ours, theirs in zip(model.state_dict().values(), trained.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def rates_of(schedule: Literal["cosine", "paper"]) -> list[float]:
    rate = RegistrationTask(TRAIN, VAL, replace(SETTINGS, steps=300, schedule=schedule)).plan().rate
    return [rate(step / 300) for step in range(300)]


def test_schedules() -> None:
    rates = rates_of("paper")
    changes = [n for n in range(1, 300) if rates[n] != rates[n - 1]]
    assert changes == [round(drop * 300) for drop in PAPER_DROPS] == [120, 170, 250]
    assert rates[0] == 1e-3
    assert rates[-1] == pytest.approx(1e-3 * 0.3**3)
    rates = rates_of("cosine")
    assert max(rates) == pytest.approx(1e-3)
    assert 0 < rates[0] < 1e-4
    assert 0 < rates[-1] < 2e-5
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[16:]))


def test_each_epoch_visits_every_case_once() -> None:
    drawn = torch.tensor(
        [pick_cases(7, 4, step, seed=1) for step in range(7)]
    ).flatten()  # 28 positions: four epochs of seven cases
    epochs = drawn.reshape(4, 7)  # 28 positions: four epochs of seven cases
    assert all(sorted(epoch.tolist()) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1
    assert not torch.equal(drawn, torch.tensor([pick_cases(7, 4, step, seed=2) for step in range(7)]).flatten())


def test_every_step_of_every_run_draws_its_own_pairs() -> None:
    """torch's CPU generator takes a seed's lowest 32 bits: seeds that differ above them gave one sequence of draws."""
    index = torch.arange(2)
    draws = []
    for seed in (0, 1, 2):
        for step in (0, 1, 1000):
            generator = torch.Generator().manual_seed(step_seed(seed, step))
            batch = draw_batch(TRAIN, index, TINY, (5.0, 5.0), SETTINGS.augmentation, generator)
            draws.append(tuple(batch.correction.matrix().flatten().tolist()))
    assert len(set(draws)) == 9


@pytest.mark.parametrize(
    ("model", "steps", "most"), [("feature-reg", 120, 0.5), ("attention-reg", 120, 0.6), ("correspondence", 80, 0.5)]
)
def test_learns_across_modalities(model: str, steps: int, most: float, tmp_path: Path) -> None:
    """Blobs against their negative: on new cases, half of the initial error goes within seconds."""
    settings = TrainingSettings(
        stage=StageSettings(model, *(((12, 12, 12), 4.0) if model == "correspondence" else ((10, 10, 10), 5.0)), 3.0),
        steps=steps,
        batch=16,
        rate=2e-3,
        val_every=steps // 2,
        val_initialisations=3,
        ema_decay=0.95,
        initial_sre_mm=(0.0, 12.0),
        precision="float32",
        augmentation=Augmentation(10.0, 0.05, 2.0, "", 0.0, 0.0, 0.2, 0.1, 0.02, 0.0, 0.0),
    )
    datasets = make_dataset(64, 1, inverted=True), make_dataset(24, 2, inverted=True)
    result = run_task(RegistrationTask(*datasets, settings), tmp_path)
    assert result.baseline == pytest.approx(6.0, abs=0.7)
    assert result.measure < most * result.baseline
    assert result.samples_per_second > 0
