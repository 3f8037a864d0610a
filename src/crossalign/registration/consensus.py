"""Perturbed initialisations, and the mean of the transforms that they lead to: robust, with its dispersion."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, draw_perturbation, mean_displacement_mm
from crossalign.geometry.fit import nearest_rotation
from crossalign.types import Distances, Points, Vector

HUBER_ITERATIONS = 20
SMALLEST_MM = 1e-6  # transforms that agree to this have no outlier among them


@dataclass(frozen=True, eq=False)
class Consensus:
    """The mean of b transforms, the weight (b,) of each in it, and how far each (b,) takes the points from it, mm."""

    transform: Rigid
    weight: Tensor
    distance_mm: Distances

    @property
    def dispersion_mm(self) -> float:
        """Mean of the distances."""
        return float(self.distance_mm.mean())


def average_rigid(transforms: Rigid, points_mm: Points) -> Consensus:
    """Return the robust mean of a batch (b) of transforms, by what they do to the points (n, 3).

    Distances are mean displacements of the points, so the answer does not depend on either image's frame. Huber's
    weights: those further than the median distance count less, in proportion. Iterations begin at the transform that is
    nearest to the others. Each mean is the chordal one: the rotation nearest to the mean matrix, and the mean position
    of the points' centre. Raises InputError without transforms.
    """
    if transforms.rotation.dim() != 3 or len(transforms) == 0:
        raise InputError(f"a mean needs a batch of transforms, got {tuple(transforms.rotation.shape[:-2])}")
    transforms = transforms.to(points_mm.device, torch.float64)
    points = points_mm.double()
    between = torch.stack([mean_displacement_mm(transforms, one, points) for one in transforms])
    mean = transforms[int(between.mean(1).argmin())]
    weight = torch.ones(len(transforms), dtype=torch.float64)
    if float(between.max()) > SMALLEST_MM:
        for _ in range(HUBER_ITERATIONS):
            distance = mean_displacement_mm(transforms, mean, points)
            scale = distance.median().clamp(min=SMALLEST_MM)
            weight = scale / distance.clamp(min=float(scale))
            mean = _weighted_mean(transforms, weight, points.mean(0))
    return Consensus(mean, weight / weight.sum(), mean_displacement_mm(transforms, mean, points))


def plain_average(transforms: Rigid, points_mm: Points) -> Rigid:
    """Return the chordal mean of a batch (b) of transforms, all weighted alike, about the points' centre."""
    weight = torch.ones(len(transforms), dtype=torch.float64)
    return _weighted_mean(transforms.to(points_mm.device, torch.float64), weight, points_mm.double().mean(0))


def perturbed_initialisations(
    initial: Rigid, points_mm: Points, center_mm: Vector, count: int, perturbation_mm: float, seed: int
) -> Rigid:
    """Return a batch (count) of initial transforms: the given one first, and perturbations of it.

    Each perturbation moves the points (n, 3) by `perturbation_mm` on average, drawn about `center_mm` as the papers
    draw initial transforms; they come in pairs, a motion and its inverse, so that they lie evenly about the given one.
    The same seed gives the same motions.
    """
    pairs = count // 2
    if pairs == 0:
        return initial[None]
    generator = torch.Generator().manual_seed(seed)
    target = torch.full((pairs,), perturbation_mm, dtype=torch.float64)
    points = points_mm.double().expand(pairs, -1, -1)
    drawn = draw_perturbation(points, center_mm.double().expand(pairs, -1), target, generator)
    back = drawn.inverse()
    motions = [Rigid.identity(), *(motion for k in range(pairs) for motion in (drawn[k], back[k]))][:count]
    return initial @ Rigid.stack(motions)


def _weighted_mean(transforms: Rigid, weight: Tensor, center_mm: Vector) -> Rigid:
    fraction = weight / weight.sum()
    rotation = nearest_rotation((fraction[:, None, None] * transforms.rotation).sum(0))
    position = (fraction[:, None] * transforms.apply(center_mm[None])[:, 0]).sum(0)
    return Rigid(rotation, position - rotation @ center_mm)
