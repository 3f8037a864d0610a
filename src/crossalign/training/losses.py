"""What a stage is trained on: ours is the error itself, the papers' the six numbers."""

import torch
from torch import Tensor

from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.training.sampler import Batch
from crossalign.types import Parameters


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
