"""The folder of an adaptation: whose it is, and the tables in it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from crossalign.data import Case, ScanPair
from crossalign.errors import CrossalignError, InputError, OutputError
from crossalign.evaluation import Evaluation, rows_csv
from crossalign.input import excerpt, read_json
from crossalign.models import Model
from crossalign.models.tensor_files import digest_of
from crossalign.output import reason, whole_file, write_text
from crossalign.training.adaptation.result import StageCurve
from crossalign.training.adaptation.settings import AdaptationSettings
from crossalign.training.adaptation.splitting import Split
from crossalign.training.data_record import cases_record, changes
from crossalign.training.run_folder import LEFT

RECORD, MANIFEST, CURVE, VAL_TABLE = "adaptation.json", "manifest.csv", "learning-curve.csv", "val.csv"
FIGURE, REPORT = "learning-curve.png", "report.html"
CASE_COLUMNS = ("case", "patient", "split", "fixed", "moving", "fixed_mask", "reference", "moving_mask", "landmarks")
CURVE_COLUMNS = ("stage", "step", "val_sre_mm")
ANOTHER = "name a new folder"


@contextmanager
def begun(folder: Path, pairs: Sequence[ScanPair], model: Model, settings: AdaptationSettings) -> Iterator[None]:
    """Make the folder, or check that it holds an adaptation of this model to these pairs with these settings.

    A folder that was made and in which no training began is removed on an error. Raises OutputError.
    """
    is_new = not os.path.lexists(folder)
    _check(folder, _record(pairs, model, settings))
    try:
        yield
    except CrossalignError:
        if is_new and not any(folder.glob("stage-*")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _record(pairs: Sequence[ScanPair], model: Model, settings: AdaptationSettings) -> dict[str, object]:
    weights = [digest_of(stage.network.state_dict(), {}) for stage in model.stages]
    data = cases_record((pair.name, vars(pair)) for pair in pairs)
    return {"settings": asdict(settings), "starting weights": weights, **data}


def _check(folder: Path, record: Mapping[str, object]) -> None:
    path = folder / RECORD
    try:
        folder.mkdir(exist_ok=True)
        held = [one.name for one in folder.iterdir() if not one.name.startswith(LEFT)]
    except (OSError, ValueError) as error:
        raise OutputError(f"{excerpt(folder, 200)}: cannot be used for an adaptation: {reason(error)}") from error
    if not held:
        with whole_file(path) as partial:
            write_text(json.dumps(record, indent=2) + "\n", partial)
        return
    if not path.is_file():
        raise OutputError(f"{folder}: holds other files than an adaptation ('{excerpt(held[0])}'): {ANOTHER}")
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise InputError(f"{path}: is not the record of an adaptation: {ANOTHER}")
    if changed := changes(saved, record):
        raise OutputError(f"{folder}: holds an adaptation of other data or settings: {ANOTHER} ({'; '.join(changed)})")


def cases_of(split: Split) -> Iterator[Case]:
    """Return the cases of a split, those to train on first."""
    yield from (one.case("train") for one in split.train)
    yield from (one.case("val") for one in split.val)


def write_manifest(split: Split, path: Path) -> None:
    """Write the split's cases as a manifest, which `evaluate` and `train` read. Raises OutputError."""
    rows = [{"case": case.name, **vars(case)} for case in cases_of(split)]
    with whole_file(path, overwrite=True) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CASE_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: _cell(row[column], path.parent) for column in CASE_COLUMNS} for row in rows)


def _cell(value: object, folder: Path) -> str:
    if isinstance(value, Path):
        return os.path.relpath(value, folder) if _is_inside(value, folder) else str(value.absolute())
    return "" if value is None else str(value)


def _is_inside(path: Path, folder: Path) -> bool:
    return path.absolute().is_relative_to(folder.absolute())


def write_rows(evaluation: Evaluation, path: Path) -> None:
    """Write the table of an evaluation. Raises OutputError."""
    with whole_file(path, overwrite=True) as partial:
        write_text(rows_csv(evaluation), partial)


def write_curves(curves: Sequence[StageCurve], path: Path) -> None:
    """Write learning curves as CSV: stage, step, val SRE (mm). Raises OutputError."""
    with whole_file(path, overwrite=True) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CURVE_COLUMNS)
        writer.writerows((curve.number, step, f"{sre:.4f}") for curve in curves for step, sre in curve.points)
