"""Small cases with a known answer, methods whose outcome is known, and evaluations written by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from crossalign.data import Case, Landmarks, LoadedCase
from crossalign.evaluation import Evaluation, Row, Scores, StepScore
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, surface_points, write_image, write_label_map, write_transform
from crossalign.registration import Method, Problem, Solution, Step

CENTER_MM = (30.0, -40.0, 55.0)
FLIPPED = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))


def rigid(*parameters: float, center_mm: tuple[float, float, float] = CENTER_MM) -> Rigid:
    return Rigid.from_parameters(torch.tensor(parameters).double(), torch.tensor(center_mm).double())


REFERENCE = rigid(-120.0, 80.0, 15.0, 10.0, -8.0, 12.0)


def ellipsoid(grid: Grid, image_to_fixed: Rigid, name: str) -> LabelMap:
    points = image_to_fixed.apply(grid.points_mm().reshape(-1, 3)) - torch.tensor(CENTER_MM).double()
    inside = (points / torch.tensor([18.0, 14.0, 11.0]).double()).square().sum(-1) < 1
    return LabelMap(inside.reshape(grid.shape).long(), grid, name)


def toy_case(name: str = "toy", patient: str = "p0", complete: bool = True) -> LoadedCase:
    """An ellipsoid seen on an LPS grid and, moved by REFERENCE, on a flipped anisotropic one."""
    fixed_grid = Grid.centered(CENTER_MM, (20, 24, 26), (2.5, 2.5, 2.5))
    middle = REFERENCE.apply(torch.tensor([CENTER_MM]).double())[0]
    corner = middle + torch.tensor([30.0, 30.0, -30.0]).double()
    x, y, z = corner.tolist()
    moving_grid = Grid((31, 25, 31), (2.0, 2.5, 2.0), (x, y, z), FLIPPED)
    fixed_mask = ellipsoid(fixed_grid, Rigid.identity(), "gland")
    moving_mask = ellipsoid(moving_grid, REFERENCE.inverse(), "moving gland")
    marks = torch.tensor([[30.0, -40.0, 55.0], [35.0, -30.0, 50.0], [20.0, -45.0, 60.0]]).double()
    error = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0], [0.0, 1.0, 0.0]]).double()
    return LoadedCase(
        name=name,
        patient=patient,
        split="val",
        fixed=Image(fixed_mask.labels.float() + 0.1 * fixed_grid.points_voxel()[..., 0].float(), fixed_grid, "fixed"),
        moving=Image(moving_mask.labels.float() - 0.1, moving_grid, "moving"),
        fixed_mask=fixed_mask,
        fixed_to_moving=REFERENCE,
        surface_mm=surface_points(fixed_mask, 300),
        moving_mask=moving_mask if complete else None,
        landmarks=Landmarks(("a", "b", "c"), marks, REFERENCE.apply(marks) + error) if complete else None,
    )


def written_case(case: LoadedCase, folder: Path) -> Case:
    """Write the case's files and return the manifest's row for them."""
    folder.mkdir()
    write_image(case.fixed, folder / "fixed.nii.gz")
    write_image(case.moving, folder / "moving.nrrd")
    write_label_map(case.fixed_mask, folder / "gland.nii.gz")
    write_transform(case.fixed_to_moving, folder / "reference.tfm")
    files = [folder / name for name in ("fixed.nii.gz", "moving.nrrd", "gland.nii.gz", "reference.tfm")]
    return Case(case.name, case.patient, case.split, *files)


@dataclass(frozen=True)
class Toy(Method):
    """Steps that it is given, as transforms to compose with the reference: identity is the truth."""

    steps: tuple[Rigid, ...] = (Rigid.identity(),)
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "toy"

    def settings(self) -> dict[str, str]:
        return {"steps": str(len(self.steps))}

    def solve(self, problem: Problem) -> Solution:
        assert problem.fixed_mask is not None
        steps = [Step(f"step{i}", REFERENCE @ motion, 0.25 * (i + 1)) for i, motion in enumerate(self.steps)]
        return Solution(tuple(steps), self.warnings)


@dataclass(frozen=True)
class Crashing(Method):
    error: Exception = field(default_factory=lambda: ZeroDivisionError("it\nbroke"))

    @property
    def name(self) -> str:
        return "crashing"

    def settings(self) -> dict[str, str]:
        return {}

    def solve(self, problem: Problem) -> Solution:  # noqa: ARG002
        raise self.error


def row(case: str, method: str, initial_mm: float, sre_mm: tuple[float, ...], repeat: int = 0, error: str = "") -> Row:
    """One registration of patient `case[0]` from range 0-20; TRE and Dice are made up from SRE."""
    steps = tuple(StepScore(f"s{i}", value, 0.01 * (i + 1)) for i, value in enumerate(sre_mm))
    last = sre_mm[-1] if sre_mm else initial_mm
    before, after = (Scores(value, value + 1, 1 - value / 20) for value in (initial_mm, last))
    return Row(case, case[0], "val", "0-20", repeat, method, before, after, steps, 0.03, (), error)


def hand_evaluation() -> Evaluation:
    """Two patients (a with two cases), methods `still` and `net_&_two`, and one registration of the latter failed."""
    sre_mm: Mapping[str, tuple[float, tuple[float, ...]]] = {
        "a1": (10.0, (6.0, 4.0)),
        "a2": (8.0, (5.0, 5.0)),
        "b1": (12.0, (7.0, 3.0)),
        "b2": (6.0, ()),
    }
    rows: list[Row] = []
    for case, (initial_mm, after_mm) in sre_mm.items():
        rows.append(row(case, "still", initial_mm, (initial_mm,)))
        rows.append(row(case, "net_&_two", initial_mm, after_mm, error="" if after_mm else "no overlap"))
    return Evaluation(
        tuple(rows), ("still", "net_&_two"), ("0-20",), 1, 7, {"still": {}, "net_&_two": {"crop": "30 %"}}
    )
