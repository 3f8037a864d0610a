"""Cascade: trained stages one after another, each correcting what the one before left."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from crossalign.errors import InputError
from crossalign.geometry import Rigid, quarter_turn
from crossalign.images import surface_points
from crossalign.models import Stage, load_stage
from crossalign.models.cascade_settings import CascadeSettings, ExpectsError, stored_settings
from crossalign.networks import crop_points
from crossalign.registration.frame import along_fixed_axes
from crossalign.registration.preprocessed_pair import PreprocessedPair, mask_warnings
from crossalign.registration.problem import Expectation, Method, Problem, Solution, Step
from crossalign.registration.search import search_initialisation
from crossalign.registration.stage_run import RegistrationContext, StageRun, answers_together, run_stages
from crossalign.types import Points

NEXT = "start closer (--initial), look for a start (--search), check the headers (--header-turn) or try --method mi"
CROP_POINTS = 6  # a side: where there is no mask, distances are told over the crop


@dataclass(frozen=True, eq=False)
class Cascade(Method):
    """Stages in the order in which they run. Each sees the fixed crop and, through the transform so far, the moving.

    With `run.together` all see the same start, and their answers are averaged: an ensemble.
    A stage predicts a correction D about the crop's centre (the gland's centroid, or the middle of the fixed grid
    without a mask): the next transform is `fixed_to_moving @ D`. A stage trained in label mode needs the mask.
    `run` says how often and from how many starts each stage is run, and how its doubts are calibrated.
    """

    stages: tuple[Stage, ...]
    device: torch.device
    label: str = "cascade"
    run: CascadeSettings = field(default_factory=CascadeSettings)

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("a cascade needs one trained stage or more")
        if self.run.search is not None and not isinstance(self.stages[0].network, ExpectsError):
            raise InputError("a search needs a first stage that expects its own error, and this network does not")
        first = self._groups()[0][1]
        if len(self.run.header_turns_deg) > 1 and not all(isinstance(stage.network, ExpectsError) for stage in first):
            raise InputError(
                "to find out how the headers are turned the first stage must expect its own error, and this network "
                "does not: name one turn (0 where the headers are right)"
            )

    @property
    def name(self) -> str:
        """Name given when it was loaded."""
        return self.label

    def settings(self) -> dict[str, str]:
        """Each stage's network, crop and input, and how they are run where that is not once each."""
        told = {f"stage {number}": _described(stage) for number, stage in enumerate(self.stages, start=1)}
        if self.run != CascadeSettings():
            told["run"] = self.run.text()
        if self.run.calibration is not None:
            told["trusted"] = f"up to an expected SRE of {self.run.calibration.threshold_mm:g} mm"
        return told

    @torch.no_grad()
    def solve(self, problem: Problem) -> Solution:
        """Run the stages; raises InputError where a stage needs the fixed mask and there is none.

        Crops run along the fixed image's axes, each taken for the one of L, P and S that it is nearest to: so the
        answer does not depend on how the two worlds are turned together.
        """
        working, frame = along_fixed_axes(problem)
        solution = self._solved(working)
        steps = tuple(replace(step, fixed_to_moving=frame.to_world(step.fixed_to_moving)) for step in solution.steps)
        return replace(solution, steps=steps)

    def _solved(self, problem: Problem) -> Solution:
        warnings = list(mask_warnings(self.stages, problem))
        context = RegistrationContext(
            problem, PreprocessedPair(problem, self.device), problem.center_mm, _points_mm(problem, self.stages[0])
        )
        current = problem.initial
        context, told = self._turned(context, current)
        warnings += told
        steps: list[Step] = []
        if self.run.search is not None:
            steps.append(search_initialisation(context, self.stages[0], current, self.run.search))
            current = steps[-1].fixed_to_moving
        done = StageRun((), None, None, ())
        for title, group in self._groups():
            done = run_stages(context, group, current, self.run, title)
            current = done.steps[-1].fixed_to_moving
            steps += done.steps
            warnings += done.warnings
        expectation, told = _expectation(done, self.run)
        return Solution(tuple(steps), (*warnings, *told), expectation)

    def _groups(self) -> list[tuple[str, tuple[Stage, ...]]]:
        """Return the stages that run one after another, and those that run together, with their titles."""
        if self.run.together and len(self.stages) > 1:
            return [(f"{len(self.stages)} networks together", self.stages)]
        return [(f"stage {n} ({stage.settings.network})", (stage,)) for n, stage in enumerate(self.stages, start=1)]

    def _turned(self, context: RegistrationContext, start: Rigid) -> tuple[RegistrationContext, tuple[str, ...]]:
        """Choose how the headers are turned, and say so where they are not as they should be."""
        starts = start[None]
        turns = self.run.header_turns_deg
        contexts = [replace(context, turn=quarter_turn(turn // 90)) for turn in turns]
        if len(turns) == 1:
            return contexts[0], ()
        reasons = [answers_together(one, self._groups()[0][1], starts).network_sre_mm for one in contexts]
        expected = [math.inf if doubt is None else float(doubt.mean().nan_to_num(math.inf)) for doubt in reasons]
        best = expected.index(min(expected))
        if turns[best] == 0:
            return contexts[best], ()
        warning = (
            f"the images look as if their headers were wrong: turned by {turns[best]} degrees about z the rectum would "
            "lie behind. They were registered so; the transform still belongs to the files as they are"
        )
        return contexts[best], (warning,)


def load_cascade(
    paths: Sequence[Path], device: torch.device, label: str = "cascade", run: CascadeSettings | None = None
) -> Cascade:
    """Load trained stages from files, in the order in which they are to run; raises WeightsError.

    `run` None takes the settings that the last file carries, or runs each stage once.
    """
    stages = tuple(load_stage(path, device) for path in paths)
    return Cascade(stages, device, label, stored_settings(stages) if run is None else run)


def _expectation(done: StageRun, run: CascadeSettings) -> tuple[Expectation, tuple[str, ...]]:
    """Calibrate what the last stage knows of its error; also return what the user should be warned of."""
    dispersion, network, calibration = done.dispersion_mm, done.network_sre_mm, run.calibration
    if calibration is None:
        return Expectation(network, None, dispersion, network), ()
    expected = calibration.expected_sre_mm(dispersion, network)
    if expected is None:
        warning = "no expected SRE: the calibration of these weights needs several starts (--starts 2 or more)"
        return Expectation(None, None, dispersion, network), (warning,)
    trusted = expected <= calibration.threshold_mm
    limit = f"over the limit of {calibration.threshold_mm:.1f} mm"
    if trusted:
        return Expectation(expected, True, dispersion, network), ()
    reasons = (f"its expected SRE is {expected:.1f} mm, {limit}; {NEXT}",)
    return Expectation(expected, False, dispersion, network, reasons), ()


def _points_mm(problem: Problem, stage: Stage) -> Points:
    """Points (n, 3) that distances are told at: the gland's surface, or without a mask a lattice over the crop."""
    if problem.fixed_mask is not None:
        return surface_points(problem.fixed_mask)
    steps = [size * stage.settings.crop_spacing_mm / CROP_POINTS for size in stage.settings.crop_shape]
    spacing = torch.tensor(steps[::-1], dtype=torch.float64)
    return (crop_points((CROP_POINTS,) * 3, 1.0) * spacing).flatten(0, 2) + problem.center_mm


def _described(stage: Stage) -> str:
    settings = stage.settings
    crop = "x".join(str(size) for size in settings.crop_shape)
    return f"{settings.network}, crop {crop} at {settings.crop_spacing_mm:g} mm, fixed {settings.fixed_input}"
