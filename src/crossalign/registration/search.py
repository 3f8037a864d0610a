"""A coarse search for a start: the network looks from many places, and the one it doubts least is taken."""

import itertools
import time

import torch

from crossalign.errors import InputError
from crossalign.geometry import Rigid, inside_fraction
from crossalign.models import Stage
from crossalign.models.cascade_settings import GridSearch
from crossalign.registration.overlap import LOW_OVERLAP
from crossalign.registration.problem import Step
from crossalign.registration.stage_run import RegistrationContext, answers_from


def candidate_motions(search: GridSearch) -> torch.Tensor:
    """Return the motions as parameters (27 or 189, 6), mm and degrees; the first moves nothing."""
    shifts = torch.tensor(list(itertools.product((0.0, -1.0, 1.0), repeat=3)), dtype=torch.float64) * search.shift_mm
    axes = torch.eye(3, dtype=torch.float64)
    turns = torch.cat((torch.zeros(1, 3, dtype=torch.float64), axes, -axes)) * search.turn_deg
    used = turns if search.turn_deg > 0 else turns[:1]
    return torch.cat((shifts.repeat(len(used), 1), used.repeat_interleave(len(shifts), 0)), dim=1)


def search_initialisation(context: RegistrationContext, stage: Stage, start: Rigid, search: GridSearch) -> Step:
    """Run a stage from the grid of starts about one, and return its answer where it expects the smallest error.

    Starts that bring less than a quarter of the structure into the moving image are not looked at, unless all do.
    Raises InputError where the network does not expect its own error.
    """
    began = time.perf_counter()
    starts = start @ Rigid.from_parameters(candidate_motions(search), context.center_mm)
    grid = context.problem.moving.grid
    shares = [inside_fraction(start.apply(context.points_mm), grid) for start in starts]
    seen = torch.tensor([share >= LOW_OVERLAP for share in shares])
    starts = starts[seen] if bool(seen.any()) else starts
    answers = answers_from(context, stage, starts)
    if answers.network_sre_mm is None:
        raise InputError("a search needs a network that expects its own error, and this one does not")
    best = answers.transforms[int(answers.network_sre_mm.nan_to_num(torch.inf).argmin())]
    return Step(f"search ({len(starts)} starts)", best, time.perf_counter() - began)
