"""What a stage is trained on: ours is the error itself, the papers' the six numbers."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.models.correspondence import CorrespondenceReg, Matching
from crossalign.training.sampler import Batch
from crossalign.types import Parameters, Volume

MATCH_WEIGHT, GLAND_WEIGHT, DOUBT_WEIGHT = 0.5, 5.0, 0.2  # chosen on val, docs/experiments.md
OUTSIDE = 0.05  # weight of a match away from the gland, beside 1 on it


def correction_error_mm(parameters: Parameters, batch: Batch) -> Tensor:
    """SRE (b,) of predicted corrections: |E D(p) - p| = |D(p) - E^-1(p)|, since the start E keeps distances."""
    predicted = Rigid.from_parameters(parameters, torch.zeros(3, device=parameters.device))
    return mean_displacement_mm(predicted, batch.correction, batch.surface_mm)


def sre_loss(parameters: Parameters, batch: Batch) -> Tensor:
    """Mean SRE over the batch, mm: in one unit, and weighing a degree by what it moves."""
    return correction_error_mm(parameters, batch).mean()


def parameters_loss(parameters: Parameters, batch: Batch) -> Tensor:
    """Mean squared error of the raw six parameters, mm and degrees mixed without weights, as the papers have it."""
    target = batch.correction.to_parameters(torch.zeros(3, device=parameters.device))
    return (parameters - target).square().mean()


def guided_loss(model: CorrespondenceReg, found: Matching, batch: Batch) -> Tensor:
    """SRE, and what tells a correspondence network more about one pair than six numbers do.

    Added are the mean distance (Charbonnier) of each match from where the rigid truth puts its place, mostly about the
    gland; the cross-entropy of both marked glands; and how far the expected SRE is from the true one, which teaches the
    expectation alone. The batch holds glands; those of a case without a moving mask are left out.
    """
    error = mean_displacement_mm(found.motion, batch.correction, batch.surface_mm)
    if batch.fixed_gland is None or batch.moving_gland is None:
        raise InputError("the guided loss needs a batch that was drawn with glands")
    doubt = (model.expected_sre_mm(found) - error.detach()).abs()
    glands = _marking_loss(found.fixed_gland, batch.fixed_gland) + _marking_loss(found.moving_gland, batch.moving_gland)
    matches = match_error_mm(found, batch.correction, batch.fixed_gland)
    return (error + MATCH_WEIGHT * matches + DOUBT_WEIGHT * doubt).mean() + GLAND_WEIGHT * glands


def match_error_mm(found: Matching, correction: Rigid, fixed_gland: Volume) -> Tensor:
    """Return the mean Charbonnier distance (b,), mm, of matches from the truth, weighted by the gland and its rim."""
    wide = F.max_pool3d(fixed_gland, 3, 1, 1)
    weight = F.avg_pool3d(wide, 2).flatten(1) + OUTSIDE
    left = (found.matches_mm - correction.apply(found.places_mm)).square().sum(-1)
    return (((left + 1).sqrt() - 1) * weight).sum(-1) / weight.sum(-1)


def _marking_loss(logits: Volume, gland: Volume) -> Tensor:
    known = (gland.amin(dim=(1, 2, 3, 4), keepdim=True) >= 0).to(logits)
    each = F.binary_cross_entropy_with_logits(logits, gland.clamp(0, 1), reduction="none")
    return (each * known).mean()
