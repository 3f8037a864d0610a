"""Cases in this process, or in several of this machine, each with its share of the threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from types import FrameType

import torch

from crossalign.cli.batch.finished import CaseResult
from crossalign.cli.batch.jobs import Job
from crossalign.cli.batch.work import Names, do_case
from crossalign.output import discard_partials

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
ENDED = (
    "the process that registered it ended, twice: it was killed, or there was not enough memory: use fewer --workers, "
    "or resample the images"
)
GRACE_SECONDS = 10.0


def run_here(jobs: Sequence[Job], names: Names) -> Generator[CaseResult, None, None]:
    """Do the cases one after another in this process."""
    for job in jobs:
        yield do_case(job, names)


def run_in_processes(jobs: Sequence[Job], names: Names, workers: int) -> Generator[CaseResult, None, None]:
    """Do the cases in `workers` processes, and give each result as it is there.

    Where a process dies, the cases that were being done are done again, one at a time, so that one which kills its
    process twice is known and reported as failed, and no other. Where the generator is closed, the processes end.
    """
    waiting, suspects = deque(jobs), deque[Job]()
    while waiting or suspects:
        queue, count = (suspects, 1) if suspects else (waiting, min(workers, len(waiting)))
        running: dict[Future[CaseResult], Job] = {}
        with _processes(count, max(1, torch.get_num_threads() // workers)) as pool:
            try:
                yield from _run(pool, queue, running, names, count)
            except BrokenProcessPool:
                if queue is suspects:
                    yield from (CaseResult(job.name, ENDED) for job in running.values())
                else:
                    suspects.extend(running.values())


def _run(
    pool: ProcessPoolExecutor, queue: deque[Job], running: dict[Future[CaseResult], Job], names: Names, count: int
) -> Generator[CaseResult, None, None]:
    """Keep `count` cases running: no more, so that those which are lost with a process are known."""
    while queue or running:
        while queue and len(running) < count:
            future = pool.submit(do_case, queue[0], names)
            running[future] = queue.popleft()
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            result = future.result()
            del running[future]
            yield result


@contextmanager
def _processes(count: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes that import everything anew; on any error, and where asked to stop, they end at once."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin)
    with _threads_of_children(threads):
        try:
            yield pool
        except BaseException:
            children = set(multiprocessing.active_children()) - before
            for child in children:
                child.terminate()
            for child in children:
                child.join(GRACE_SECONDS)
                child.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _threads_of_children(count: int) -> Iterator[None]:
    """Give the number of threads to the processes that are started meanwhile: libraries read it when they load."""
    old = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin() -> None:
    """Prepare a process: Ctrl-C is its parent's to answer; it ends with its parent, and leaves nothing half written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end(number: int, _frame: FrameType | None) -> None:
    discard_partials()
    os._exit(128 + number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        _end(signal.SIGTERM, None)
