"""References of a site's pairs: given, fitted to both structures, or a model's own answers where it trusts them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from crossalign.data import Case, ScanPair
from crossalign.data.case import load_mask
from crossalign.errors import CrossalignError, InputError
from crossalign.geometry import Rigid, quarter_turn
from crossalign.images import Image, LabelMap, read_image, write_transform
from crossalign.input import read_json
from crossalign.output import whole_file, write_text
from crossalign.registration import NetworkRegistration, Problem, choose_initialisation, register
from crossalign.registration.iterative.surface import SurfaceRegistration
from crossalign.registration.pose_prior import TRANSRECTAL

ReferenceKind: TypeAlias = Literal["given", "structures", "model"]
# From the most to the least certain, and what each is called.
KINDS: Mapping[ReferenceKind, str] = {
    "given": "given",
    "structures": "fitted to both structures",
    "model": "the model's own trusted answer",
}
TABLE, FOLDER = "references.json", "references"


@dataclass(frozen=True)
class ReferencedPair:
    """A pair, the file of its reference (fixed to moving, LPS mm), and where that is from."""

    pair: ScanPair
    kind: ReferenceKind
    reference: Path

    def case(self, split: str) -> Case:
        """Return it as a case of a split."""
        return self.pair.with_reference(self.reference, split)


@dataclass(frozen=True)
class LeftOut:
    """A pair without a reference, and why it has none."""

    name: str
    reason: str


@dataclass(frozen=True)
class References:
    """What became of each pair."""

    found: tuple[ReferencedPair, ...]
    left_out: tuple[LeftOut, ...] = ()

    def counts(self) -> dict[ReferenceKind, int]:
        """Count the pairs of each kind of reference, in the order of KINDS."""
        return {kind: sum(one.kind == kind for one in self.found) for kind in KINDS}


Watch: TypeAlias = Callable[[str], None]


def find_references(
    pairs: Sequence[ScanPair], method: NetworkRegistration, folder: Path, watch: Watch = lambda _text: None
) -> References:
    """Find a reference for each pair, and keep those that are computed in `folder`; a second call reads them there.

    `method` answers for pairs without a moving structure, from the initial transform that `crossalign register` takes
    by itself. Its orientation correction holds for every pair. `watch` is called with a line for each pair. Raises
    ImageError for scans and masks that cannot be used.
    """
    table = folder / TABLE
    if table.is_file():
        return _read(table, pairs)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    found, left_out = list[ReferencedPair](), list[LeftOut]()
    for number, pair in enumerate(pairs, start=1):
        path = folder / FOLDER / f"{number:04d}.tfm"
        one = _reference(pair, method, path)
        (found if isinstance(one, ReferencedPair) else left_out).append(one)  # type: ignore[arg-type]
        watch(f"{pair.name}: {KINDS[one.kind] if isinstance(one, ReferencedPair) else f'left out, {one.reason}'}")
    rows = [{"case": one.pair.name, "kind": one.kind, "file": _relative(one)} for one in found]
    text = json.dumps({"found": rows, "left_out": [asdict(one) for one in left_out]}, indent=2)
    with whole_file(table, overwrite=True) as partial:
        write_text(text + "\n", partial)
    return References(tuple(found), tuple(left_out))


def _relative(one: ReferencedPair) -> str:
    return "" if one.kind == "given" else one.reference.name


def _read(table: Path, pairs: Sequence[ScanPair]) -> References:
    saved, by_name = read_json(table), {pair.name: pair for pair in pairs}
    try:
        found = []
        for row in saved["found"]:
            pair = by_name[row["case"]]
            path = pair.reference if row["kind"] == "given" else table.parent / FOLDER / Path(row["file"]).name
            if path is None or not path.is_file() or row["kind"] not in KINDS:
                raise ValueError(row["case"])
            found.append(ReferencedPair(pair, row["kind"], path))
        return References(tuple(found), tuple(LeftOut(**row) for row in saved["left_out"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{table}: is not of this adaptation ({error}): delete it, and it is made anew") from error


def _reference(pair: ScanPair, method: NetworkRegistration, path: Path) -> ReferencedPair | LeftOut:
    if pair.reference is not None:
        return ReferencedPair(pair, "given", pair.reference)
    fixed, moving = read_image(pair.fixed), read_image(pair.moving)
    mask = load_mask(pair.name, pair.fixed_mask, fixed)
    if pair.moving_mask is not None:
        structure = load_mask(pair.name, pair.moving_mask, moving)
        fitted = _fit_structures(fixed, moving, mask, structure, _patient_rotation(method))
        if isinstance(fitted, str):
            return LeftOut(pair.name, f"the fit of both structures is not trusted: {fitted}")
        write_transform(fitted, path, overwrite=True)
        return ReferencedPair(pair, "structures", path)
    try:
        answer = register(fixed, moving, method, choose_initialisation(fixed, moving, mask).fixed_to_moving, mask)
    except CrossalignError as error:
        return LeftOut(pair.name, f"the model failed: {error}")
    expectation = answer.expectation
    if expectation.trusted is False:
        return LeftOut(pair.name, "the model does not trust its own answer, and there is no moving structure to fit")
    write_transform(answer.fixed_to_moving, path, overwrite=True)
    return ReferencedPair(pair, "model", path)


def _patient_rotation(method: NetworkRegistration) -> Tensor:
    """Return the rotation (3, 3) from the headers' axes to the patient's that a method is run with."""
    correction = method.run.orientation_correction
    return quarter_turn(0 if correction == "auto" else correction // 90).double()


def _fit_structures(
    fixed: Image, moving: Image, fixed_mask: LabelMap, moving_mask: LabelMap, fixed_to_patient: Tensor
) -> Rigid | str:
    """Fit two surfaces beside the rotation prior (method `surface`), or say why the answer is not to be trusted."""
    shift = Rigid.from_translation(moving_mask.centroid_mm() - fixed_mask.centroid_mm())
    problem = Problem(fixed, moving, shift, fixed_mask, moving_mask, TRANSRECTAL, fixed_to_patient)
    solution = SurfaceRegistration().solve(problem)
    if solution.expectation.trusted is False:
        return "; ".join(solution.expectation.reasons)
    return solution.steps[-1].fixed_to_moving.to("cpu", torch.float64)


def answering(method: NetworkRegistration, initialisations: int) -> NetworkRegistration:
    """Return a method that averages the answers of several initialisations."""
    return method.with_run(replace(method.run, initialisations=initialisations))
