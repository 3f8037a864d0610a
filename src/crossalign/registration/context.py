"""A problem as networks see it: crops through a transform, and what a network answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from crossalign.geometry import Grid, Rigid, quarter_turn
from crossalign.models.arrangement import Answers, Stage, StageAnswers
from crossalign.networks.capabilities import ExpectsError, ShowsFit
from crossalign.registration.consensus import plain_average
from crossalign.registration.frame import WorkingFrame
from crossalign.registration.pose_prior import ExpectedRotation, expected_rotation
from crossalign.registration.preprocessed_pair import PreprocessedPair
from crossalign.registration.problem import Application, Problem
from crossalign.types import Distances, Map, Parameters, Points, Volume

CROP_BATCH_VOXELS = 2**20  # of one crop each: 32 of 32^3 voxels; attention on larger crops needs the memory


@dataclass(frozen=True, eq=False)
class RegistrationContext:
    """One problem in the frame that crops are cut in, and the points (n, 3) over which distances are measured.

    Crops lie about the problem's centre, along the patient's axes as the problem knows them; `orientation_deg` is a
    further rotation about z, an orientation correction.
    """

    problem: Problem
    frame: WorkingFrame
    preprocessed: PreprocessedPair
    stages: tuple[Stage, ...]
    points_mm: Points
    orientation_deg: int = 0
    match_variance_mm2: float = 0.0

    @cached_property
    def expected_rotation(self) -> ExpectedRotation | None:
        """What the problem's prior says of the rotation, in the frame that crops are cut in; None where nothing."""
        problem = self.problem
        if problem.prior is None or self.match_variance_mm2 == 0:
            return None
        return expected_rotation(problem.prior, problem.moving.grid, problem.initial, self.rotation)

    @property
    def rotation(self) -> Tensor:
        """The rotation (3, 3) from the fixed image's axes to those of the crops."""
        return self._rotation(self.orientation_deg)

    def _rotation(self, orientation_deg: int) -> Tensor:
        return quarter_turn(orientation_deg // 90) @ self.problem.patient_rotation

    def apply(self, stage: Stage, initial: Rigid) -> Answers:
        """Run a stage once from each of a batch of initial transforms; raises no error for what the network answers."""
        depth, height, width = stage.settings.crop_shape
        size = max(1, CROP_BATCH_VOXELS // (depth * height * width))
        parameters: list[Parameters] = []
        expected: list[Distances] = []
        for first in range(0, len(initial), size):
            fixed, moving = self._crops(stage, initial[first : first + size], self.orientation_deg)
            found, error_mm = self._forward(stage, fixed, moving, initial[first : first + size])
            parameters.append(found.double().cpu())
            if error_mm is not None:
                expected.append(error_mm.double().cpu())
        answer = initial @ self.from_crop(torch.cat(parameters))
        expected_sre_mm = torch.cat(expected) if expected else None
        return Answers(answer, expected_sre_mm, (StageAnswers(stage, initial, answer, expected_sre_mm),))

    def mean(self, transforms: Sequence[Rigid]) -> Rigid:
        """Average batches of b transforms, one by one."""
        count = len(transforms[0])
        batches = [Rigid.stack([members[one] for members in transforms]) for one in range(count)]
        return Rigid.stack([plain_average(batch, self.points_mm) for batch in batches])

    def from_crop(self, parameters: Parameters) -> Rigid:
        """Make corrections of the images' own space from parameters (b, 6) about the crop's centre, along its axes."""
        correction = Rigid.from_parameters(parameters, torch.zeros(3))
        rotation = self.rotation.mT @ correction.rotation @ self.rotation
        center = self.problem.center_mm
        return Rigid(rotation, center + correction.translation_mm @ self.rotation - (rotation @ center))

    def to_crop(self, correction: Rigid) -> Parameters:
        """Return the parameters (6,) of one correction about the crop's centre, along its axes: undoes `from_crop`."""
        center = self.problem.center_mm
        shift = self.rotation @ (correction.apply(center[None])[0] - center)
        about_crop = Rigid(self.rotation @ correction.rotation @ self.rotation.mT, shift)
        return about_crop.to_parameters(torch.zeros(3))

    def crops(self, application: Application) -> tuple[Volume, Map]:
        """Cut again the crops (1, 1, z, y, x) that a network was given, on the networks' device."""
        frame = self.frame
        initial = frame.moving_to_frame @ application.initial @ frame.fixed_to_frame.inverse()
        return self._crops(self._stage(application), initial[None], application.orientation_deg)

    def crops_at(self, stage: Stage, initial: Rigid) -> tuple[Volume, Map]:
        """Cut the crops (b, 1, z, y, x) that a stage is given at a batch of b transforms, on the networks' device."""
        return self._crops(stage, initial, self.orientation_deg)

    def mask_crop(self, stage: Stage) -> Volume:
        """Cut the fixed mask (1, 1, z, y, x) as a stage's fixed crop shows it; there must be a mask."""
        label = replace(stage, settings=replace(stage.settings, fixed_input="label"))
        return self._crops(label, Rigid.identity()[None], self.orientation_deg)[0]

    def crop_grid(self, application: Application) -> Grid:
        """Return where the voxels of the fixed crop lie in the fixed image's space (LPS, mm).

        The moving crop's voxels lie at the same points, mapped by `application.initial`.
        """
        settings = self._stage(application).settings
        back = self.frame.fixed_to_frame.inverse()
        a, b, c = (back.rotation @ self._rotation(application.orientation_deg).mT).tolist()
        spacing = (settings.crop_spacing_mm,) * 3
        direction = ((a[0], a[1], a[2]), (b[0], b[1], b[2]), (c[0], c[1], c[2]))
        at_origin = Grid(settings.crop_shape, spacing, (0.0, 0.0, 0.0), direction)
        x, y, z = (back.apply(self.problem.center_mm[None])[0] - at_origin.center_mm()).tolist()
        return Grid(settings.crop_shape, spacing, (x, y, z), direction)

    def number_of(self, stage: Stage) -> int:
        """Return the number (from 1) of a stage of the model."""
        return next(number for number, one in enumerate(self.stages, start=1) if one is stage)

    def _stage(self, application: Application) -> Stage:
        return self.stages[application.stage_number - 1]

    def _forward(self, stage: Stage, fixed: Volume, moving: Map, initial: Rigid) -> tuple[Parameters, Distances | None]:
        network, expected = stage.network, self.expected_rotation
        if expected is not None and isinstance(network, ShowsFit):
            moments, error_mm = network.forward_with_fit(fixed, moving)
            motion = moments.fit(self._attraction_mm2(expected, initial).to(moments.covariance))
            return motion.to_parameters(torch.zeros(3, device=fixed.device)), error_mm
        if isinstance(network, ExpectsError):
            return network.forward_with_error(fixed, moving)
        return network(fixed, moving), None

    def _attraction_mm2(self, expected: ExpectedRotation, initial: Rigid) -> Tensor:
        """Return what a prior adds to the matches' covariance, (b, 3, 3), along the crop's axes.

        Each correction D follows one of b initial transforms: it is initial @ D that the prior is about.
        """
        correction = initial.rotation.mT @ (self.match_variance_mm2 * expected.attraction())
        return self.rotation @ correction @ self.rotation.mT

    def _crops(self, stage: Stage, initial: Rigid, orientation_deg: int) -> tuple[Volume, Map]:
        rotation = self._rotation(orientation_deg)
        return self.preprocessed.crops(stage.settings, self.problem.center_mm, initial, rotation)
