"""A run in an MLflow store: settings, every loss, the measure, the card and files; a store that fails stops nothing."""

import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.training.toys import make_dataset
from tests.training.trained import SETTINGS

from crossalign.cli import tracking
from crossalign.cli.tracking import check_mlflow, tracked
from crossalign.errors import InputError, InputWarning
from crossalign.training import RegistrationTask, RunResult, run_task


def train(folder: Path, uri: str, minutes: float = 10.0) -> RunResult:
    task = RegistrationTask(make_dataset(6, 1), make_dataset(3, 2), SETTINGS)
    with tracked(uri, "tests", folder, task.settings()) as tracker:
        assert tracker is not None
        result = run_task(task, folder, minutes, tracker.watch)
        tracker.finish(result)
    return result


def test_a_run_is_in_the_store(tmp_path: Path) -> None:
    """A store in a folder needs no server, and nothing of the environment."""
    check_mlflow("file:///anywhere")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient
    uri = (tmp_path / "store").as_uri()
    result = train(tmp_path / "run", uri)
    assert train(tmp_path / "run", uri).finished  # goes on, in the same run
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    number = run.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["stage.network"] == "attention-reg"
    assert run.data.params["steps"] == str(asdict(SETTINGS)["steps"])
    assert [metric.step for metric in client.get_metric_history(number, "loss")] == list(range(1, 16))
    measured = [metric.value for metric in client.get_metric_history(number, "val_sre_mm")]
    assert min(measured) == pytest.approx(result.measure)
    assert "not a medical device" in run.data.tags["mlflow.note.content"]
    names = {entry.path for entry in client.list_artifacts(number)}
    assert names == {"card.md", "settings.json", "history.csv", "best.safetensors"}


def test_a_store_that_fails_is_warned_of_once(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    with pytest.warns(InputWarning, match="goes on without it") as caught:
        assert train(tmp_path / "run", "http://127.0.0.1:9").finished
    assert len(caught) == 1


def test_a_database_needs_all_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "DATABASE_PACKAGES", ("absent_part_of_mlflow",))
    for uri in (f"sqlite:///{tmp_path}/runs.db", "postgresql+psycopg2://host/runs"):
        with pytest.raises(
            InputError, match=r"absent_part_of_mlflow is missing.*pip install mlflow, or give the address"
        ):
            check_mlflow(uri)
    check_mlflow("http://localhost:5000")
