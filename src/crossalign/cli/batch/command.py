"""`crossalign batch`: a cohort in; transforms, records, pages, a table and an index out."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from crossalign.cli.batch.finished import CaseResult, read_finished
from crossalign.cli.batch.folder import BIDS, FOLDERS, open_folder, write_summary
from crossalign.cli.batch.jobs import Job, jobs_of
from crossalign.cli.batch.work import Names
from crossalign.cli.console import Progress
from crossalign.cli.registration.command import UNTRUSTED_STATUS
from crossalign.cli.reply import Outcome
from crossalign.cli.requests.batch import BatchRequest
from crossalign.cli.results.registration import BatchResult, CaseResultEntry
from crossalign.errors import InputError

FAILED_STATUS = 1
LISTED = 5


def run_batch(request: BatchRequest) -> Outcome[BatchResult]:
    """Register every case that is not finished, and write table and page, also where it is interrupted.

    A case that fails is reported, and the others go on. Raises CrossalignError for what concerns all of them.
    """
    if request.scheduler is not None and request.workers > 1:
        raise InputError("--workers is for this machine: with --scheduler the cases go to its workers; leave one out")
    jobs = jobs_of(request)
    names = Names.of(jobs)
    here = request if request.scheduler is None else replace(request, device="cpu")  # the workers' may differ
    names.load(here)  # a wrong name or setting ends the command before the first case
    open_folder(request.output, BIDS if request.source.is_dir() else FOLDERS)
    results = _earlier(jobs, request.overwrite)
    earlier = len(results)
    to_do = [job for job in jobs if job.name not in results]
    try:
        with Progress(len(to_do), "case") as progress, closing(_run(request, to_do, names)) as run:
            for result in run:
                results[result.name] = result
                progress.advance(f"{result.name} {_word(result)}")
    finally:
        written = write_summary(request.output, jobs, results)
    return _outcome(request, results, earlier, written)


def _earlier(jobs: Sequence[Job], overwrite: bool) -> dict[str, CaseResult]:
    """Return the results of the cases that are finished, those that are to be done again left out.

    Raises InputError where finished cases had other inputs or settings, and may not be done again.
    """
    found, changed = dict[str, CaseResult](), list[str]()
    for job in jobs:
        finished = read_finished(job)
        if finished is None:
            continue
        result, changes = finished
        if not changes:
            found[job.name] = result
        elif not overwrite:
            changed.append(f"{job.name} ({'; '.join(changes)})")
    if changed:
        more = f", and {len(changed) - LISTED} others" if len(changed) > LISTED else ""
        raise InputError(
            f"{len(changed)} finished cases had other inputs or settings: {', '.join(changed[:LISTED])}{more}: pass "
            "--overwrite to do them again, or name another folder"
        )
    return found


def _run(request: BatchRequest, jobs: Sequence[Job], names: Names) -> Generator[CaseResult, None, None]:
    if not jobs:
        return
    if request.scheduler is not None:
        from crossalign.cli.batch.cluster import run_on_cluster

        yield from run_on_cluster(jobs, names, request.scheduler)
        return
    from crossalign.cli.batch.pool import run_here, run_in_processes

    workers = min(request.workers, len(jobs))
    yield from run_here(jobs, names) if workers == 1 else run_in_processes(jobs, names, workers)


def _word(result: CaseResult) -> str:
    if result.error:
        return "failed"
    expected = "" if result.expected_sre_mm is None else f", expected error {result.expected_sre_mm:.1f} mm"
    return f"done in {result.seconds:.1f} s{expected}"


def _outcome(
    request: BatchRequest, results: Mapping[str, CaseResult], earlier: int, written: Sequence[Path]
) -> Outcome[BatchResult]:
    failed = [result for result in results.values() if result.error]
    untrusted = [result for result in results.values() if not result.error and result.trusted is False]
    unknown = sum(not result.error and result.trusted is None for result in results.values())
    trusted = len(results) - len(failed) - len(untrusted) - unknown
    counts = [f"{trusted} trusted"]
    counts += [f"{unknown} of unknown trust"] if unknown else []
    counts += [f"{len(untrusted)} not to be trusted", f"{len(failed)} failed"]
    before = f"; {earlier} finished before" if earlier else ""
    lines = [f"cases    {len(results)} ({', '.join(counts)}{before})", *(f"wrote    {path}" for path in written)]
    warnings = [f"case '{result.name}' failed: {result.error}" for result in failed]
    if failed:
        warnings.append(f"{len(failed)} cases failed: the same command tries them again, and skips the others")
    status = FAILED_STATUS if failed else UNTRUSTED_STATUS if request.strict and untrusted else 0
    found = (len(results), trusted, unknown, len(untrusted), len(failed), earlier)
    result = BatchResult(*found, tuple(_entry(one) for one in results.values()))
    return Outcome(tuple(lines), tuple(warnings), status, result, tuple(written))


def _entry(result: CaseResult) -> CaseResultEntry:
    return CaseResultEntry(
        case=result.name,
        method=result.method,
        expected_sre_mm=result.expected_sre_mm,
        trusted=result.trusted,
        reasons=result.reasons,
        warnings=result.warnings,
        error=result.error,
        seconds=result.seconds,
    )
