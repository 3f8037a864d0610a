"""One case after another in one process, which loads each method once."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from crossalign.cli.batch.finished import CaseResult, input_marks, read_finished, write_finished
from crossalign.cli.batch.jobs import Job
from crossalign.cli.checks import pick_device
from crossalign.cli.console import input_warnings
from crossalign.cli.failures import explained
from crossalign.cli.methods import chosen_method, configured
from crossalign.cli.registration.answer import Registered
from crossalign.cli.registration.command import check_outputs, register_case
from crossalign.cli.requests.registration import CaseOptions, RegisterRequest
from crossalign.images import write_transform
from crossalign.registration import Method
from crossalign.registration.methods import named_method
from crossalign.report.page import Privacy
from crossalign.report.pages.cohort import case_thumbnail

SHORT = re.compile(r".{0,2}|[0-9.]{0,4}")  # names of folders that would be found in any text, such as 3
# A thread of a Dask worker is no process of its own: the readers' warnings are collected for one case at a time.
_one_at_a_time = threading.Lock()
_loaded: dict[str, dict[str, Method]] = {}


@dataclass(frozen=True)
class Names:
    """The methods of a cohort by name: one, or several where masks choose it by the case."""

    names: tuple[str, ...]

    @staticmethod
    def of(jobs: Sequence[Job]) -> Names:
        """Name the method of each job, each once."""
        return Names(tuple(dict.fromkeys(chosen_method(job.request)[0] for job in jobs)))

    def load(self, options: CaseOptions) -> dict[str, Method]:
        """Load the methods with the settings that were given, once in a process. Raises CrossalignError."""
        key = repr((self.names, options.device, options.run, options.mi, options.mind, options.surface))
        if key not in _loaded:
            device = pick_device(options.device)
            made = [named_method(name, device) for name in self.names]
            ready = configured(made, options.run, options.mi, options.mind, options.surface)
            _loaded[key] = dict(zip(self.names, ready, strict=True))
        return _loaded[key]


def do_case(job: Job, names: Names) -> CaseResult:
    """Register a case and write its files, the one that says that it is finished last; never raises an Exception.

    A case that is finished is not done again: a task may come twice, where the process that had done it has died.
    """
    began, odd, privacy = time.perf_counter(), list[str](), _privacy(job.request)
    with _one_at_a_time, input_warnings(odd.append):
        try:
            found = read_finished(job)
            if found is not None and not found[1]:
                return replace(found[0], earlier=False)
            return _done(job, names.load(job.request), began)
        except Exception as error:  # noqa: BLE001 - the others go on
            text = privacy.clean(explained(error, debug=True)[0])
            warnings = tuple(privacy.clean(one) for one in odd)
            return CaseResult(job.name, text, seconds=time.perf_counter() - began, warnings=warnings)


def _done(job: Job, methods: dict[str, Method], began: float) -> CaseResult:
    request = job.request
    job.finished.parent.mkdir(parents=True, exist_ok=True)
    check_outputs(request)
    marks = input_marks(request)
    job.finished.unlink(missing_ok=True)  # its outputs are about to be replaced
    registered = register_case(request, methods[chosen_method(request)[0]])
    result, pair = registered.result, registered.pair
    expected = result.expected_sre_mm
    if job.inverse is not None:
        write_transform(result.fixed_to_moving.inverse(), job.inverse, overwrite=True)
    clean = _privacy(request, registered).clean
    done = CaseResult(
        name=job.name,
        method=clean(result.method),
        expected_sre_mm=expected if expected is not None and math.isfinite(expected) else None,
        trusted=result.trusted,
        reasons=tuple(clean(text) for text in result.reasons),
        warnings=tuple(clean(text) for text in result.warnings),
        thumbnail=case_thumbnail(pair.fixed, pair.moving, result),
        seconds=time.perf_counter() - began,
    )
    write_finished(job, marks, done)
    return done


def _privacy(request: RegisterRequest, registered: Registered | None = None) -> Privacy:
    """Call every input what it is: names of files and folders may be patients'."""
    parts = ("fixed", "moving", "fixed_mask", "moving_mask", "fixed_landmarks", "moving_landmarks")
    named = {part: getattr(request, part) for part in parts}
    names: dict[str, str] = {}
    for part, path in named.items():
        words = f"the {part.replace('_', ' ')}" + ("" if "_" in part else " image")
        if path is not None:
            names |= {str(path): words} | ({} if SHORT.fullmatch(path.name) else {path.name: words})
    if registered is not None:
        pair = registered.pair
        images = {"the fixed image": pair.fixed, "the moving image": pair.moving}
        names |= Privacy.of({**images, "the fixed mask": pair.fixed_mask, "the moving mask": pair.moving_mask}).names
    return Privacy(names)
