"""A training in an MLflow tracking server, beside the run's folder: settings, curve, model card and files.

Only tracking is used, which `mlflow-skinny` has. A server that fails is warned of once, and the training goes on.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crossalign.errors import InputError, InputWarning
from crossalign.extras import optional_module
from crossalign.input import excerpt
from crossalign.training import RunResult
from crossalign.training.run_folder import BEST, HISTORY, SETTINGS

RUN_FILE = "mlflow.json"  # in the run's folder: which run of which server it is, so that a resumed one goes on in it
# Short waits, so that a server which is gone does not hold a training up; and nothing is sent to MLflow's makers.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder as the store, where that is what was asked for
}
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
DATABASE_PACKAGES = ("sqlalchemy", "alembic")  # of MLflow's, which mlflow-skinny leaves out
MOST_AT_ONCE = 100  # MLflow's limit of parameters in one request
LONGEST_VALUE = 500


def check_mlflow(uri: str) -> None:
    """Raise InputError where MLflow is not installed, or only its client where the store is a database."""
    _mlflow("mlflow.tracking")
    scheme = uri.partition(":")[0].partition("+")[0]
    lacking = [name for name in DATABASE_PACKAGES if find_spec(name) is None]
    if scheme in DATABASES and lacking:
        raise InputError(
            f"--mlflow {scheme}:...: a database as the store needs all of MLflow (here {' and '.join(lacking)} is "
            "missing), and the extra is the client alone: pip install mlflow, or give the address of a server "
            "(mlflow server --backend-store-uri ...), or a folder"
        )


def _mlflow(module: str) -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return optional_module(module, "--mlflow needs MLflow", "mlflow")


@contextmanager
def tracked(uri: str | None, experiment: str, folder: Path, settings: Mapping[str, object]) -> Iterator[Tracker | None]:
    """Track a training in the server of this address; None: it is not tracked.

    The run in the server is marked as failed where an error ends the training.
    """
    if uri is None:
        yield None
        return
    tracker = Tracker(uri, experiment, folder, settings)
    try:
        yield tracker
    except BaseException:
        tracker.end("FAILED")
        raise


class Tracker:
    """One run in a tracking server. No method raises an error of the server: the first one is warned of, once."""

    def __init__(self, uri: str, experiment: str, folder: Path, settings: Mapping[str, object]) -> None:
        self._uri, self._folder, self._settings = uri, folder, settings
        self._works, self._id, self._metrics = True, "", list[Any]()
        self._client: Any = None
        self._attempt(lambda: self._begin(experiment))

    def watch(self, row: Mapping[str, float]) -> None:
        """Keep the loss of a step; send what was kept, and what was measured, at a validation."""
        if not self._works:
            return
        now = int(time.time() * 1000)
        metric = _mlflow("mlflow.entities").Metric
        names = [name for name in row if name != "step"] if len(row) > 4 else ["loss"]
        self._metrics += [metric(name, row[name], now, int(row["step"])) for name in names if math.isfinite(row[name])]
        if len(row) > 4 or len(self._metrics) >= MOST_AT_ONCE * 5:
            self._attempt(self._send)

    def finish(self, result: RunResult) -> None:
        """Send the files and the model card, and mark the run as finished, or as stopped."""

        def send() -> None:
            self._send()
            card = _card(self._folder, self._settings, result)
            self._client.set_tag(self._id, "mlflow.note.content", card)
            self._client.log_text(self._id, card, "card.md")
            for name in (SETTINGS, HISTORY, BEST):
                if (self._folder / name).is_file():
                    self._client.log_artifact(self._id, str(self._folder / name))

        self._attempt(send)
        self.end("FINISHED" if result.finished else "KILLED")

    def end(self, status: str) -> None:
        """Mark the run as ended."""
        self._attempt(lambda: self._client.set_terminated(self._id, status))

    def _begin(self, experiment: str) -> None:
        self._client = _mlflow("mlflow.tracking").MlflowClient(tracking_uri=self._uri)
        saved: dict[str, str] = {}
        with suppress(OSError, ValueError):
            saved = json.loads((self._folder / RUN_FILE).read_text(encoding="utf-8"))
        if saved.get("uri") == self._uri and (self._folder / SETTINGS).is_file():
            self._id = saved["run"]
            self._client.update_run(self._id, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        self._id = self._client.create_run(number, run_name=self._folder.absolute().name).info.run_id
        parameter = _mlflow("mlflow.entities").Param
        flat = [parameter(name, excerpt(value, LONGEST_VALUE)) for name, value in _flat(self._settings)]
        for first in range(0, len(flat), MOST_AT_ONCE):
            self._client.log_batch(self._id, params=flat[first : first + MOST_AT_ONCE])

    def _send(self) -> None:
        path = self._folder / RUN_FILE
        if not path.is_file() and self._folder.is_dir():
            path.write_text(json.dumps({"uri": self._uri, "run": self._id}), encoding="utf-8")
        while self._metrics:
            self._client.log_batch(self._id, metrics=self._metrics[:MOST_AT_ONCE])
            del self._metrics[:MOST_AT_ONCE]

    def _attempt(self, work: Callable[[], object]) -> None:
        if not self._works:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work()
        except Exception as error:  # noqa: BLE001 (whatever a client of a server raises; the training goes on)
            self._works = False
            text = f"--mlflow: the server cannot be used ({excerpt(error, 300)}): the training goes on without it"
            warnings.warn(text, InputWarning, stacklevel=2)


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _card(folder: Path, settings: Mapping[str, object], result: RunResult) -> str:
    measured = f"{result.measure:.4g}" if math.isfinite(result.measure) else "not measured yet"
    stage = settings.get("stage")
    network = stage.get("network", "") if isinstance(stage, Mapping) else ""
    return (
        f"# {folder.absolute().name}\n\nA stage of the network `{network}`, trained by crossalign. Research software, "
        f"not a medical device.\n\n| what | value |\n|---|---|\n| steps | {result.steps} |\n| best step | "
        f"{result.best_step} |\n| validation SRE, mm | {measured} |\n| at the initialisations, mm | "
        f"{result.baseline:.4g} |\n"
    )
