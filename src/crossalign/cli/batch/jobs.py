"""What is to be done: for each pair of a cohort the request that `register` would take, and where its results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from crossalign.cli.checks import weight_files
from crossalign.cli.initialisation import transform_file
from crossalign.cli.requests.batch import BatchRequest
from crossalign.cli.requests.registration import CaseOptions, RegisterRequest
from crossalign.data.bids import BidsChoice, BidsImages, read_bids_pairs
from crossalign.data.pairs import PairFiles, read_pairs
from crossalign.errors import InputError
from crossalign.input import excerpt
from crossalign.models.pretrained import shipped_path

MANIFEST_SUFFIX = ".csv"


@dataclass(frozen=True)
class Job:
    """One case: its registration, and the files that it makes besides.

    `finished` is written last: where it is there, the case is finished. `inverse` gets the transform of the other
    direction, moving points to fixed points.
    """

    name: str
    request: RegisterRequest
    finished: Path
    inverse: Path | None = None

    def outputs(self) -> tuple[Path, ...]:
        """Return the files that the case makes, the one that says so left out."""
        paths = (self.request.output_transform, self.inverse, self.request.moved, self.request.report)
        return tuple(path for path in (*paths, self.request.record) if path is not None)


def jobs_of(request: BatchRequest) -> tuple[Job, ...]:
    """Read the cohort and place every case. Raises ManifestError and InputError."""
    is_bids = request.source.is_dir()
    pairs = _bids_pairs(request) if is_bids else _manifest_pairs(request.source)
    place = _bids_job if is_bids else _folder_job
    return tuple(place(request, pair) for pair in pairs)


def _manifest_pairs(source: Path) -> Sequence[PairFiles]:
    if source.suffix.lower() != MANIFEST_SUFFIX:
        raise InputError(f"{excerpt(source.name)}: expected a manifest ({MANIFEST_SUFFIX}) or the folder of a data set")
    return read_pairs(source)


def _bids_pairs(request: BatchRequest) -> Sequence[PairFiles]:
    def images(text: str | None, option: str) -> BidsImages | None:
        return None if text is None else BidsImages.parse(text, option)

    choice = BidsChoice(
        BidsImages.parse(request.bids_fixed, "--bids-fixed"),
        BidsImages.parse(request.bids_moving, "--bids-moving"),
        images(request.bids_fixed_mask, "--bids-fixed-mask"),
        images(request.bids_moving_mask, "--bids-moving-mask"),
    )
    if choice.fixed.suffix == choice.moving.suffix:
        raise InputError(f"--bids-fixed and --bids-moving are both {choice.fixed.suffix}: name two suffixes")
    return read_bids_pairs(request.source, choice)


def _folder_job(request: BatchRequest, pair: PairFiles) -> Job:
    folder = request.output.absolute() / pair.name
    made = _registration(
        request,
        pair,
        folder / "transform.tfm",
        folder / "record.json",
        folder / "moved.nii.gz" if request.moved else None,
        None if request.no_report else folder / "report.html",
    )
    return Job(pair.name, made, folder / "case.json")


def _bids_job(request: BatchRequest, pair: PairFiles) -> Job:
    """Name the files of a case as BIDS's derivatives: `from-A_to-B_mode-image` brings images of A onto B's grid.

    As ITK's transforms map points the other way, that of the fixed image's name maps moving points to fixed points.
    """
    levels = [entity for entity in pair.name.split("_") if entity.startswith(("sub-", "ses-"))]
    folder = request.output.absolute().joinpath(*levels)
    fixed, moving = (text.partition(",")[0].strip() for text in (request.bids_fixed, request.bids_moving))
    there, back = (f"{pair.name}_from-{a}_to-{b}_mode-image" for a, b in ((fixed, moving), (moving, fixed)))
    made = _registration(
        request,
        pair,
        folder / f"{back}_xfm.txt",
        folder / f"{back}_xfm.json",
        folder / f"{pair.name}_space-{fixed}_{moving}.nii.gz" if request.moved else None,
        None if request.no_report else folder / f"{back}_report.html",
    )
    return Job(pair.name, made, folder / f"{back}_case.json", folder / f"{there}_xfm.txt")


def _registration(
    request: BatchRequest, pair: PairFiles, transform: Path, record: Path, moved: Path | None, report: Path | None
) -> RegisterRequest:
    """Make the request that `register` would take for one case; paths are absolute, as workers may be elsewhere."""
    shared: dict[str, Any] = {field.name: getattr(request, field.name) for field in fields(CaseOptions)}
    if (start := pair.initial or transform_file(request.initial)) is not None:
        shared["initial"] = str(start.absolute())
    if weight_files(request.method) and shipped_path(str(request.method)) is None:
        shared["method"] = "+".join(str(Path(name).absolute()) for name in str(request.method).split("+"))
    parts = ("fixed_mask", "moving_mask", "fixed_landmarks", "moving_landmarks")
    shared |= {part: None if (path := getattr(pair, part)) is None else path.absolute() for part in parts}
    return RegisterRequest(
        pair.fixed.absolute(),
        pair.moving.absolute(),
        output_transform=transform,
        moved=moved,
        report=report,
        report_detail=request.report_detail,
        record=record,
        overwrite=True,  # of what an interrupted run left; what was finished is never done again unasked
        **shared,
    )
