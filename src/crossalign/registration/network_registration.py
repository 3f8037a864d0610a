"""Registration by trained networks: a model's stages, each correcting what the one before left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.images import surface_points
from crossalign.models.arrangement import Arrangement, Stage
from crossalign.models.model import Model
from crossalign.models.run_settings import RunSettings
from crossalign.networks.capabilities import ExpectsError
from crossalign.networks.crop import crop_points
from crossalign.registration.context import RegistrationContext
from crossalign.registration.evidence import gather_evidence
from crossalign.registration.frame import along_fixed_axes
from crossalign.registration.network_verdict import network_expectation
from crossalign.registration.preprocessed_pair import PreprocessedPair
from crossalign.registration.problem import Method, Problem, Solution, Step
from crossalign.registration.refinement import Refinement, refine
from crossalign.registration.search import choose_orientation, search_initialisation
from crossalign.types import Points

CROP_POINTS = 6  # a side: where there is no mask, distances are measured over the crop


@dataclass(frozen=True, eq=False)
class NetworkRegistration(Method):
    """A model as a registration method; its networks run on the device that they are on.

    A stage predicts a correction D about the crop's centre (the structure's centroid, or the middle of the fixed grid
    without a mask): the next transform is `fixed_to_moving @ D`. A stage trained in label mode needs the fixed mask,
    one that is given the moving mask that one. `label` is the method's name in results; empty takes the model's.
    """

    model: Model
    label: str = ""

    def __post_init__(self) -> None:
        run = self.model.run
        if run.search and not _expect_error(self.model.stages[:1]):
            raise InputError("a search needs a first stage that predicts its own error, and this network does not")
        if len(run.orientations_deg()) > 1 and not _expect_error(self.model.arrangement.in_turn()[0].stages()):
            raise InputError(
                "to find the orientation the first stage must predict its own error, and this network does not: name "
                "one orientation correction (0 where the headers are right)"
            )

    @property
    def name(self) -> str:
        """Name that it was given, or the model's."""
        return self.label or self.model.name

    @property
    def uses_moving_mask(self) -> bool:
        """Whether one of the stages is given it."""
        return any(stage.settings.takes_moving_mask() for stage in self.model.stages)

    @property
    def weighs_orientation(self) -> bool:
        """Whether the calibration has a term for it."""
        calibration = self.model.calibration
        return calibration is not None and any(term.name == "unlikely" for term in calibration.terms)

    @property
    def run(self) -> RunSettings:
        """How the model is run."""
        return self.model.run

    def settings(self) -> dict[str, str]:
        """Each stage's network, crop and input, and how they are run where that is not once each."""
        return self.model.facts()

    def with_run(self, run: RunSettings) -> NetworkRegistration:
        """Return the same model, run otherwise."""
        return replace(self, model=replace(self.model, run=run))

    @torch.no_grad()
    def solve(self, problem: Problem) -> Solution:
        """Run the model; raises InputError where a stage needs a mask and there is none.

        Crops run along the fixed image's axes, each taken for the one of L, P and S that it is nearest to: so the
        answer does not depend on a common rotation of the two worlds.
        """
        warnings = _mask_warnings(self.model.stages, problem)
        context, run = self.context(problem), self.model.run
        parts = list(_titled(self.model.arrangement))
        context, orientation_warnings = choose_orientation(context, parts[0][1], run.orientations_deg())
        warnings += orientation_warnings
        current, steps = context.problem.initial, list[Step]()
        if run.search:
            steps.append(search_initialisation(context, self.model.stages[0], current, run))
            current = steps[-1].fixed_to_moving
        last = Refinement((), None, None)
        for title, part in parts:
            last = refine(context, part, current, run, title)
            current = last.steps[-1].fixed_to_moving
            steps += last.steps
            warnings += last.warnings
        evidence = gather_evidence(context, parts[-1][1].stages(), current)
        expectation, calibration_warnings = network_expectation(last, self.model.calibration, evidence)
        steps += _shifted(context, current, run)
        to_world = context.frame.to_world
        world = tuple(replace(step, fixed_to_moving=to_world(step.fixed_to_moving)) for step in steps)
        return Solution(world, (*warnings, *calibration_warnings), expectation, _notes(context))

    def context(self, problem: Problem) -> RegistrationContext:
        """Prepare a problem for the networks, or for cutting again the crops of a result's `applications`."""
        working, frame = along_fixed_axes(problem)
        stages = self.model.stages
        pair = PreprocessedPair(working, _device(stages[0].network))
        points_mm = _points_mm(working, stages[0])
        variance_mm2 = self.model.run.match_variance_mm2
        return RegistrationContext(working, frame, pair, stages, points_mm, match_variance_mm2=variance_mm2)


def _shifted(context: RegistrationContext, found: Rigid, run: RunSettings) -> list[Step]:
    """Return the step that adds the shift which networks leave on average, where the rotation prior is used."""
    if context.expected_rotation is None or not any(run.network_shift_mm):
        return []
    shift = context.rotation.mT @ torch.tensor(run.network_shift_mm, dtype=torch.float64)
    return [Step("shift", found @ Rigid.from_translation(shift), 0.0)]


def _notes(context: RegistrationContext) -> tuple[str, ...]:
    """Say whether a rotation prior was used, where the networks are run with one."""
    prior = context.problem.prior
    if context.match_variance_mm2 == 0:
        return ()
    if prior is None:
        return ("no rotation prior, as was asked for",)
    if context.expected_rotation is None:
        return (f"the initial transform turns too far from the rotation prior to use it ({prior.text()})",)
    return (f"rotation prior used: {prior.text()}",)


def _titled(arrangement: Arrangement) -> Iterator[tuple[str, Arrangement]]:
    """Name the parts that run one after another."""
    parts = arrangement.in_turn()
    for number, part in enumerate(parts, start=1):
        single = part.stages() == (part,)
        yield (f"stage {number} ({part.title()})" if single or len(parts) > 1 else part.title()), part


def _points_mm(problem: Problem, stage: Stage) -> Points:
    """Points (n, 3) over which distances are measured: of the structure's surface, or over the crop without a mask."""
    if problem.fixed_mask is not None:
        return surface_points(problem.fixed_mask)
    steps = [size * stage.settings.crop_spacing_mm / CROP_POINTS for size in stage.settings.crop_shape]
    spacing = torch.tensor(steps[::-1], dtype=torch.float64)
    return (crop_points((CROP_POINTS,) * 3, 1.0) * spacing).flatten(0, 2) + problem.center_mm


def _mask_warnings(stages: Sequence[Stage], problem: Problem) -> tuple[str, ...]:
    """Return the warning for a problem without a fixed mask; raises InputError where a stage needs a mask."""
    if problem.moving_mask is None and any(stage.settings.takes_moving_mask() for stage in stages):
        raise InputError(
            "this model is given the structure's mask in the moving image too: name it as the moving mask "
            "(--moving-mask), or use a method that needs none"
        )
    if problem.fixed_mask is not None:
        return ()
    if any(stage.settings.fixed_input == "label" for stage in stages):
        raise InputError("this model is given the structure's mask: name it as the fixed mask (--fixed-mask)")
    return ("no fixed mask: the crop is centred on the fixed image's middle, not on the structure",)


def _expect_error(stages: Sequence[Stage]) -> bool:
    return all(isinstance(stage.network, ExpectsError) for stage in stages)


def _device(network: nn.Module) -> torch.device:
    return next((one.device for one in network.parameters()), torch.device("cpu"))
