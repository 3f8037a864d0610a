"""What a run is resumed from is checked: its settings, its data, its files; and what to do is said."""

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.damage import damaged, edited_lines
from tests.training.toys import make_dataset
from tests.training.trained import SETTINGS, left_by
from torch import nn

from crossalign.errors import CrossalignError, InputError, InputWarning, OutputError, WeightsError
from crossalign.models import load_stage
from crossalign.models.tensor_files import save_tensors
from crossalign.output import PARTIAL
from crossalign.training import RegistrationTask, RunResult, TrainingSettings, run_task
from crossalign.training.checkpoint import read_checkpoint
from crossalign.training.data_record import cases_record, changes, file_digest, todays_record
from crossalign.training.preparation import simulation_record
from crossalign.training.run_folder import check_run_folder, read_history
from crossalign.training.tasks.registration import seeded_network

SHORT = replace(SETTINGS, steps=4, val_every=2, val_initialisations=1)
TRAIN, VAL = make_dataset(4, 1), make_dataset(2, 2)
DATA = {"sha256": "a", "cases": {"a": {"split": "train", "fixed": "1"}, "b": {"split": "val", "fixed": "2"}}}


def train(
    folder: Path,
    settings: TrainingSettings = SHORT,
    data: Mapping[str, object] | None = None,
    initial: nn.Module | None = None,
) -> RunResult:
    return run_task(RegistrationTask(TRAIN, VAL, settings, initial, data), folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(folder, data=DATA)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def test_other_settings_are_listed_by_name(run: Path) -> None:
    other = replace(SHORT, steps=9, rate=2e-3, stage=replace(SHORT.stage, crop_shape=(8, 8, 12)))
    with pytest.raises(OutputError) as error:
        train(run, other, DATA)
    for words in (
        "steps: was 4, now 9",
        "rate: was 0.001, now 0.002",
        "stage.crop_shape: was [8, 8, 8], now [8, 8, 12]",
    ):
        assert words in str(error.value)
    assert "name another folder" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"a": {"split": "val", "fixed": "1"}, "b": {"split": "train", "fixed": "2"}},
            "case 'a', split: was \"train\"",
        ),
        ({"a": {"split": "train", "fixed": "9"}, "b": {"split": "val", "fixed": "2"}}, "case 'a', fixed: another file"),
        ({"a": {"split": "train", "fixed": "1"}}, "case 'b', split: was \"val\", now not there"),
        ({"b": {"split": "val", "fixed": "2"}, "a": {"split": "train", "fixed": "1"}}, "order of the cases"),
        ({"a": {"split": "train", "fixed": "1"}, "b": {"split": "val", "fixed": "2"}}, "the cases"),
    ],
)
def test_other_data_is_named(change: dict[str, object], message: str, run: Path) -> None:
    with pytest.raises(OutputError, match="holds a run on other data") as error:
        train(run, data={"sha256": "b", "cases": change})
    assert message in str(error.value)
    assert train(run, data=DATA).finished


def test_other_datasets_and_other_initial_weights_are_named(tmp_path: Path) -> None:
    first, second = (seeded_network(SHORT.stage, seed) for seed in (1, 2))
    train(tmp_path, initial=first)
    with pytest.raises(OutputError, match="the weights that it begins with"):
        train(tmp_path, initial=second)
    with pytest.raises(OutputError, match=r"the dataset of train pairs; the dataset of val pairs"):
        run_task(RegistrationTask(VAL, TRAIN, SHORT, first), tmp_path)


def test_a_record_names_contents_not_paths(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("same")
    (tmp_path / "two").write_text("same")
    first, second = (
        cases_record([("a", {"split": "train", "fixed": tmp_path / name, "moving_mask": None})])
        for name in ("one", "two")
    )
    assert first == second
    (tmp_path / "two").write_text("not so")
    now = cases_record([("a", {"split": "train", "fixed": tmp_path / "two", "moving_mask": None})])
    assert changes(first, now) == ["case 'a', fixed: another file"]


def test_a_detached_file_of_voxels_counts(tmp_path: Path) -> None:
    header, voxels = tmp_path / "a.mhd", tmp_path / "a.raw"
    header.write_text("NDims = 3\nElementDataFile = a.raw\n")
    voxels.write_bytes(b"\0" * 9)
    before = file_digest(header)
    voxels.write_bytes(b"\1" * 9)
    assert file_digest(header) != before


def test_initial_weights_are_kept_until_something_is_better(tmp_path: Path) -> None:
    """A rate that breaks the network: the best stage is the one before the first step, and so it stays on resuming."""
    good = train(tmp_path / "good", replace(SHORT, steps=40, val_every=40, rate=2e-3))
    begun = load_stage(good.best).network
    broken = replace(SHORT, rate=30.0, seed=9)
    result = train(tmp_path / "tuned", broken, initial=begun)
    assert result.best_step == 0
    best = load_stage(result.best)
    assert best.notes["step"] == "0"
    for name, value in begun.state_dict().items():
        assert torch.equal(best.network.state_dict()[name], value)
    assert train(tmp_path / "tuned", broken, initial=begun).best_step == 0
    assert not any(row["step"] == 0 for row in read_history(tmp_path / "tuned" / "history.csv"))


def test_a_stage_that_is_worse_than_its_initialisations_says_so(tmp_path: Path) -> None:
    result = train(tmp_path / "run", replace(SHORT, rate=3.0, initial_sre_mm=(0.1, 0.2)))
    assert result.is_no_better_than_baseline()
    assert not replace(result, measure=result.baseline / 2).is_no_better_than_baseline()
    assert not replace(result, measure=math.inf).is_no_better_than_baseline()  # nothing was measured yet


def test_validation_of_the_beginning_changes_no_step(tmp_path: Path) -> None:
    """The same network as drawn, and as begun with: the same training, bit for bit."""
    drawn, begun = tmp_path / "drawn", tmp_path / "begun"
    train(drawn)
    train(begun, initial=seeded_network(SHORT.stage, SHORT.seed))
    mine, theirs = (load_file(folder / "last.safetensors") for folder in (drawn, begun))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("position", [0, 3, 9, 200, 2000, 50_000, -1])
def test_one_flipped_bit_is_found_and_the_checkpoint_before_it_goes_on(
    position: int, run: Path, finished: Path
) -> None:
    last = run / "last.safetensors"
    data = bytearray(last.read_bytes())
    data[position] ^= 4
    last.write_bytes(bytes(data))
    with pytest.raises(
        WeightsError, match=r"last\.safetensors: not a checkpoint .*delete it, and the run goes on from"
    ):
        train(run, data=DATA)
    last.unlink()
    assert read_checkpoint(run / "previous.safetensors").progress.step == 2
    assert train(run, data=DATA).finished
    mine, theirs = left_by(run), left_by(finished)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert [row["step"] for row in read_history(run / "history.csv")] == [2, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 10**9}, "'step' is 1000000000, the run has 4"),
        ({"step": -5}, "'step' must be a whole number"),
        ({"step": 2.5}, "'step' must be a whole number"),
        ({"step": True}, "'step' must be a whole number"),
        ({"step": None}, "'step' must be a whole number"),
        ({"best_step": 5}, "'best_step' is 5, after 'step' 4"),
        ({"best_measure": -1.0}, "'best_measure' must be a number"),
        ({"best_measure": "low"}, "'best_measure' must be a number"),
        ({"seconds": None}, "'seconds' must be a number"),
        ({"settings": 3}, "'settings' must be text"),
        ({"settings": "{"}, "not JSON"),
        ({"settings": "3"}, "does not say what the run was begun with"),
        ({"luck": 1}, "its progress has"),
    ],
)
def test_progress_is_checked(change: dict[str, object], message: str, run: Path) -> None:
    last = run / "last.safetensors"
    progress = json.loads(metadata_of(last)["progress"]) | change
    save_tensors(load_file(last), {"progress": json.dumps(progress)}, last, overwrite=True)
    with pytest.raises(WeightsError, match="delete it, and the run goes on from previous") as error:
        train(run, data=DATA)
    assert message in str(error.value)


def test_a_checkpoint_of_an_earlier_version_goes_on_with_a_warning(run: Path) -> None:
    last = run / "last.safetensors"
    progress = json.loads(metadata_of(last)["progress"])
    for later in ("best_step", "data"):
        del progress[later]
    text = json.dumps(progress | {"best_measure": math.inf})  # as was written ahead of the first validation
    save_file(load_file(last), last, {"progress": text})
    with pytest.warns(InputWarning) as warned:
        assert train(run, data=DATA).finished
    assert any("without a digest" in str(one.message) for one in warned)
    assert any("did not record the data" in str(one.message) for one in warned)


OLD = {  # what earlier versions called it
    "initial_sre_mm": "start_sre_mm",
    "val_initialisations": "val_starts",
    "ema_decay": "average",
    "network": "model",
    "rotation_deg": "turn_deg",
    "deformation_mm": "bend_mm",
    "moving_deformation_mm": "part_mm",
    "cutout": "blank",
    "best_measure": "best_sre_mm",
    "initial weights": "begins with",
}


def with_old_names(value: object) -> object:
    if isinstance(value, dict):
        return {OLD.get(name, name): with_old_names(one) for name, one in value.items()}
    return value


def test_a_run_of_an_earlier_version_goes_on_under_todays_names(tmp_path: Path) -> None:
    run, initial = tmp_path / "run", seeded_network(SHORT.stage, 1)
    train(run, SHORT, initial=initial)
    last, settings = run / "last.safetensors", run / "settings.json"
    progress = json.loads(metadata_of(last)["progress"])
    texts = {name: json.dumps(with_old_names(json.loads(progress[name]))) for name in ("settings", "data")}
    assert '"start_sre_mm"' in texts["settings"]
    assert '"begins with"' in texts["data"]
    old = with_old_names(progress | texts)
    save_tensors(load_file(last), {"progress": json.dumps(old)}, last, overwrite=True)
    settings.write_text(json.dumps(with_old_names(json.loads(settings.read_text()))))
    assert train(run, SHORT, initial=initial).finished
    with pytest.raises(OutputError, match="rate: was"):
        train(run, replace(SHORT, rate=1.0), initial=initial)


def test_a_record_of_simulated_pairs_of_an_earlier_version_is_read() -> None:
    simulator = {"pose": {"turned_share": 0.0}, "ultrasound": {"gap_share": 0.2, "speckle": [0, 1]}}
    found = todays_record({"simulated": {"pairs": 3, "simulator": simulator}, "begins with": "a"})
    pose, ultrasound = {"rotated_fraction": 0.0}, {"gap_fraction": 0.2, "speckle": [0, 1]}
    assert found == {
        "simulated": {"pairs": 3, "simulator": {"pose": pose, "ultrasound": ultrasound}}, "initial weights": "a"
    }  # fmt: skip
    assert set(simulation_record(1)) == {"simulated", "preparation"}


def test_a_run_whose_crops_were_prepared_otherwise_goes_on_with_a_warning(tmp_path: Path) -> None:
    train(tmp_path, data=DATA)
    with pytest.warns(InputWarning, match="resampled once more"):
        assert train(tmp_path, data=DATA | {"preparation": 2}).finished


def test_a_best_file_that_is_gone_is_made_again(run: Path) -> None:
    (run / "best.safetensors").unlink()
    with pytest.warns(InputWarning, match="what was the best so far is lost"):
        result = train(run, data=DATA)
    assert load_stage(result.best).notes["step"] == "4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "does not hold the settings of a run"),
        ('{"editor.tabSize": 4}', "does not hold the settings of a run"),
        ('{"steps": NaN, "batch": 4, "seed": 3}', "NaN"),
    ],
)
def test_settings_json_that_is_garbage(text: str, message: str, run: Path, tmp_path: Path) -> None:
    (run / "settings.json").write_text(text)
    with pytest.raises(InputError, match="delete it: it is written again from the checkpoint") as error:
        train(run, data=DATA)
    assert message in str(error.value)
    (run / "settings.json").unlink()
    assert train(run, data=DATA).finished
    assert json.loads((run / "settings.json").read_text())["steps"] == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "settings.json").write_text(text)
    with pytest.raises(InputError, match="move it away, or name another folder"):
        train(tmp_path / "mine")
    assert (tmp_path / "mine" / "settings.json").read_text() == text


def test_settings_json_that_was_edited_names_what_differs(run: Path) -> None:
    saved = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({**saved, "rate": 5, "luck": True}))
    with pytest.raises(InputError, match=r"rate: was 5, now 0\.001; luck: was true, now not there"):
        train(run, data=DATA)


@pytest.mark.parametrize(
    "content",
    [
        b"step,loss\n1,2\n",
        b"\xff\xfe\0\0",
        b"step,loss,rate,seconds,val_sre_mm,samples_per_second\nluck,1,1,1,1,1\n4,1,1,1,1,1\n",
        b"step,loss,rate,seconds,val_sre_mm,samples_per_second\n4,1,1,1,1,1\n2,1,1,1,1,1\n4,1,1,1,1,1\n",
        b"step,loss,rate,seconds,val_sre_mm,samples_per_second\n2,1,1\n4,1,1,1,1,1\n",
        b"step,loss,rate,seconds,val_top1_miss,samples_per_second\n2,1,1,1,1,1\n",
    ],
)
def test_a_history_that_the_run_did_not_write(content: bytes, run: Path) -> None:
    (run / "history.csv").write_bytes(content)
    with pytest.raises(InputError, match="delete or repair it: the run goes on from its checkpoint"):
        train(run, data=DATA)
    (run / "history.csv").unlink()
    assert train(run, data=DATA).finished


def test_what_a_kill_leaves_before_settings_json_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "tensorboard" / "events.out.tfevents.1").write_text("")
    for name in (f"{PARTIAL}12345678-1-abcd.json", ".partial-abc.json"):
        (folder / name).write_text("{")
    assert train(folder).finished
    (tmp_path / "mine" / "tensorboard").mkdir(parents=True)
    (tmp_path / "mine" / "tensorboard" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"holds other files than a run \('tensorboard'\)"):
        check_run_folder(tmp_path / "mine")
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(OutputError):
            check_run_folder(tmp_path / name)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["last.safetensors", "settings.json", "history.csv"])
@pytest.mark.parametrize("instead", [fifo, lambda path: (path.unlink(), path.mkdir())])
def test_pipes_and_folders_in_place_of_a_runs_files(name: str, instead: Callable[[Path], object], run: Path) -> None:
    instead(run / name)
    with pytest.raises(CrossalignError, match=r"is a (pipe|folder)"):
        train(run, data=DATA)


def test_damaged_files_of_a_run_are_refused_or_make_no_difference(run: Path, finished: Path) -> None:
    """Seeded: whatever is damaged, the run ends as it did, or an error says which file and what to do."""
    generator = np.random.default_rng(5)
    content_of = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    best = load_file(finished / "best.safetensors")
    for name, count in (("last.safetensors", 25), ("settings.json", 15), ("history.csv", 15)):
        text = content_of[name].decode() if name != "last.safetensors" else ""
        copies = [
            *damaged(content_of[name], generator, count),
            *(line.encode() for line in edited_lines(text, generator, count)),
        ]
        for copy in copies if text else copies[:count]:
            (run / name).write_bytes(copy)
            try:
                assert train(run, data=DATA).steps == 4
            except CrossalignError as error:
                assert name in str(error)  # noqa: PT017
            for other, content in content_of.items():
                (run / other).write_bytes(content)
    after = load_file(run / "best.safetensors")
    assert all(torch.equal(after[key], best[key]) for key in best)


def test_the_records_of_settings_know_whole_numbers() -> None:
    saved = json.loads(json.dumps({**asdict(SHORT), "initial_sre_mm": (0, 10)}))
    assert changes(saved, asdict(SHORT)) == []
    assert changes({**saved, "steps": 5}, asdict(SHORT)) == ["steps: was 5, now 4"]
