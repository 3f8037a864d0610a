"""What `batch` takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crossalign.cli.options import command
from crossalign.cli.requests.registration import CaseOptions, ReportDetail
from crossalign.fields import check_bounds

MOST_WORKERS = 1024


@dataclass(frozen=True)
class BatchRequest(CaseOptions):
    """Register every pair of a cohort, without truth: results by case, a table, and a page that lists the worst first.

    Run the same command again to go on after an interruption: finished cases are skipped, failed ones are tried again.
    """

    source: Path
    """A manifest (.csv with columns case, fixed, moving, and optionally fixed_mask, moving_mask, initial,
    fixed_landmarks, moving_landmarks), or the folder of a BIDS data set."""
    output: Annotated[Path, Parameter(alias="-o")] = field(kw_only=True)
    """Folder for the results: a new one, or that of an earlier run of the same cohort."""
    bids_fixed: str = field(default="T2w", kw_only=True)
    """In a BIDS data set: suffix of the fixed images, and entities that choose among several (T2w,acq=axial)."""
    bids_moving: str = field(default="TRUS", kw_only=True)
    """In a BIDS data set: suffix of the moving images, and entities."""
    bids_fixed_mask: str | None = field(default=None, kw_only=True)
    """In a BIDS data set or its derivatives: suffix and entities of the fixed masks (mask,desc=prostateT2w)."""
    bids_moving_mask: str | None = field(default=None, kw_only=True)
    """In a BIDS data set or its derivatives: suffix and entities of the moving masks."""
    moved: bool = field(default=False, kw_only=True)
    """Also write the moving image of each case on its fixed grid."""
    report_detail: ReportDetail = field(default="reduced", kw_only=True)
    """Images of the cases' pages: reduced (cropped to the structure, at most 600 000 voxels, 256 levels), or full."""
    no_report: bool = field(default=False, kw_only=True)
    """Write no page of each case: its pictures are then in the index alone."""
    workers: int = field(default=1, kw_only=True)
    """Processes that share the cases, and the machine's threads."""
    scheduler: str | None = field(default=None, kw_only=True)
    """Address of a Dask scheduler (tcp://HOST:8786), whose workers share the cases."""
    strict: bool = field(default=False, kw_only=True)
    """End with status 3 where a result is not to be trusted and no case failed."""
    overwrite: bool = field(default=False, kw_only=True)
    """Do cases again that were finished with other inputs or settings; without it they end the command."""

    def __post_init__(self) -> None:
        check_bounds(self, {"workers": (1, MOST_WORKERS)})


batch = command(BatchRequest)
