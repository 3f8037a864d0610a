"""The folder of a cohort: what tells it from others, its table, its page, and a data set's description of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import crossalign
from crossalign.cells import csv_text
from crossalign.cli.batch.finished import CaseResult
from crossalign.cli.batch.jobs import Job
from crossalign.data.bids import DESCRIPTION, describe_derivative
from crossalign.errors import InputError, OutputError
from crossalign.input import read_json
from crossalign.output import check_new_folder, whole_file, whole_files, write_text
from crossalign.report.pages.cohort import CohortRow, write_cohort_page

FORMAT = "crossalign batch 1"
MARK, TABLE, INDEX, IGNORE = "batch.json", "results.csv", "index.html", ".bidsignore"
COLUMNS = ("case", "method", "expected_error_mm", "trusted", "seconds", "reasons", "warnings", "error")
NO_BIDS = f"{MARK}\n{TABLE}\n{INDEX}\n*_case.json\n*_report.html\n*_xfm.*\n"  # names that BIDS does not know
FOLDERS, BIDS = "folders", "bids"


def open_folder(folder: Path, layout: str) -> None:
    """Make the folder of a cohort, or check that an earlier run of the same layout made it. Raises OutputError."""
    if not os.path.lexists(folder):
        check_new_folder(folder)
        folder.mkdir()
    elif not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder: name another")
    elif any(folder.iterdir()):
        _check_earlier(folder, layout)
        return
    paths = [folder / name for name in ((DESCRIPTION, IGNORE, MARK) if layout == BIDS else (MARK,))]
    mark = {"format": FORMAT, "layout": layout, "note": "Research software, not a medical device."}
    texts = {
        DESCRIPTION: describe_derivative("crossalign registrations", crossalign.__version__),
        IGNORE: NO_BIDS,
        MARK: json.dumps(mark, indent=2) + "\n",
    }
    with whole_files(paths) as partials:
        for path, partial in zip(paths, partials, strict=True):
            write_text(texts[path.name], partial)


def _check_earlier(folder: Path, layout: str) -> None:
    try:
        mark = read_json(folder / MARK)
    except InputError:
        mark = None
    if not isinstance(mark, dict) or mark.get("format") != FORMAT:
        raise OutputError(f"{folder}: holds files that are not of a batch: name a new folder")
    if mark.get("layout") != layout:
        raise OutputError(f"{folder}: holds a batch of another kind ({mark.get('layout')}): name a new folder")


def write_summary(folder: Path, jobs: Sequence[Job], results: Mapping[str, CaseResult]) -> tuple[Path, Path]:
    """Write the table, in the order of the cases, and the page, worst first; return both. Raises OutputError."""
    done = [(job, results[job.name]) for job in jobs if job.name in results]
    with whole_file(folder / TABLE, overwrite=True) as partial:
        write_text(csv_text([COLUMNS, *(_cells(result) for _, result in done)]), partial)
    write_cohort_page(folder / INDEX, [_row(folder, *one) for one in done], len(jobs), overwrite=True)
    return folder / TABLE, folder / INDEX


def _cells(result: CaseResult) -> tuple[str, ...]:
    expected = "" if result.expected_sre_mm is None else f"{result.expected_sre_mm:.3f}"
    trusted = "" if result.trusted is None else "yes" if result.trusted else "no"
    texts = ("; ".join(result.reasons), "; ".join(result.warnings), result.error)
    return (result.name, result.method, expected, trusted, f"{result.seconds:.2f}", *texts)


def _row(folder: Path, job: Job, result: CaseResult) -> CohortRow:
    report = None if result.error else job.request.report
    return CohortRow(
        name=result.name,
        error=result.error,
        method=result.method,
        expected_sre_mm=result.expected_sre_mm,
        trusted=result.trusted,
        seconds=result.seconds,
        reasons=result.reasons,
        warnings=result.warnings,
        thumbnail=result.thumbnail,
        page="" if report is None else quote(report.relative_to(folder.absolute()).as_posix()),
    )
