"""Cases on other machines: the workers of a Dask scheduler. Inputs and results are on a disk that all of them share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from crossalign.cli.batch.finished import CaseResult
from crossalign.cli.batch.jobs import Job
from crossalign.cli.batch.work import Names, do_case
from crossalign.cli.console import print_note
from crossalign.cli.failures import explained
from crossalign.errors import InputError
from crossalign.extras import optional_module

CONNECT_SECONDS = 20
ARRIVAL_SECONDS = 5.0  # network disks show new files late
NOT_HERE = "its results are not to be seen from here: the output folder must be on a disk that all machines share"


def run_on_cluster(jobs: Sequence[Job], names: Names, address: str) -> Generator[CaseResult, None, None]:
    """Do the cases on the workers of a scheduler, and give each result as it is there.

    A case whose worker dies goes to another one; after several deaths it is reported as failed. Where the generator is
    closed, cases that have not begun are withdrawn. Raises InputError where `distributed` is not installed, or no
    scheduler answers.
    """
    client = _client(address)
    try:
        if not client.scheduler_info()["workers"]:
            print_note("warning", f"--scheduler {address}: has no workers yet: the cases wait for some")
        run = secrets.token_hex(4)
        submitted = {
            client.submit(do_case, job, names, key=f"crossalign-{run}-{number}", pure=False): job
            for number, job in enumerate(jobs)
        }
        try:
            yield from _completed(submitted)
        finally:
            client.cancel(list(submitted))
    finally:
        client.close()


def _client(address: str) -> Any:
    distributed = optional_module("distributed", "--scheduler needs Dask", "dask")
    try:
        return distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers there ({explained(error, debug=True)[0]}): give the "
            "address that it printed, such as tcp://HOST:8786"
        ) from error


def _completed(submitted: dict[Any, Job]) -> Generator[CaseResult, None, None]:
    distributed: Any = import_module("distributed")
    for future in distributed.as_completed(list(submitted)):
        job = submitted[future]
        error = future.exception()
        result = CaseResult(job.name, _lost(error)) if error is not None else future.result()
        yield result if result.error or _has_arrived(job) else replace(result, error=NOT_HERE)


def _lost(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return "the workers that registered it ended: they were killed, or had not enough memory"
    return f"the worker could not do it: {explained(error, debug=True)[0]}"


def _has_arrived(job: Job) -> bool:
    end = time.monotonic() + ARRIVAL_SECONDS
    while not job.finished.is_file():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
