"""Many starts, one answer: perturbed starts, the robust mean of rigid transforms, and how far they scatter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, draw_perturbation, mean_displacement_mm
from crossalign.geometry.fit import nearest_rotation
from crossalign.types import Distances, Points, Vector

ROUNDS = 20
SMALLEST_MM = 1e-6  # answers that agree to this have no outlier among them


@dataclass(frozen=True, eq=False)
class Consensus:
    """The mean of several transforms, and how far each of them (b,) takes the points from it, mm."""

    transform: Rigid
    distance_mm: Distances

    @property
    def dispersion_mm(self) -> float:
        """Mean of the distances."""
        return float(self.distance_mm.mean())


def average_rigid(transforms: Rigid, points_mm: Points) -> Consensus:
    """Return the robust mean of a batch (b) of transforms, by what they do to the points (n, 3).

    Distances are mean displacements of the points, so the answer does not depend on either image's frame. Huber's
    weights: those further than the median distance count less, in proportion. It starts at the transform that is
    nearest to the others. The mean itself is the chordal one: the rotation nearest to the mean matrix, and the mean
    place of the points' centre. Raises InputError without transforms.
    """
    if transforms.rotation.dim() != 3 or len(transforms) == 0:
        raise InputError(f"a mean needs a batch of transforms, got {tuple(transforms.rotation.shape[:-2])}")
    transforms = transforms.to(points_mm.device, torch.float64)
    points = points_mm.double()
    between = torch.stack([mean_displacement_mm(transforms, one, points) for one in transforms])
    mean = transforms[int(between.mean(1).argmin())]
    if float(between.max()) <= SMALLEST_MM:
        return Consensus(mean, mean_displacement_mm(transforms, mean, points))
    for _ in range(ROUNDS):
        distance = mean_displacement_mm(transforms, mean, points)
        scale = distance.median().clamp(min=SMALLEST_MM)
        mean = _weighted_mean(transforms, scale / distance.clamp(min=float(scale)), points.mean(0))
    return Consensus(mean, mean_displacement_mm(transforms, mean, points))


def plain_average(transforms: Rigid, points_mm: Points) -> Consensus:
    """Return the chordal mean of a batch (b) of transforms, each counting alike, as `average_rigid` tells it."""
    transforms = transforms.to(points_mm.device, torch.float64)
    points = points_mm.double()
    mean = _weighted_mean(transforms, torch.ones(len(transforms), dtype=torch.float64), points.mean(0))
    return Consensus(mean, mean_displacement_mm(transforms, mean, points))


def perturbed_initialisations(
    start: Rigid, points_mm: Points, center_mm: Vector, count: int, spread_mm: float, seed: int
) -> Rigid:
    """Return a batch (count) of starts about one, itself the first.

    Each other one moves the points (n, 3) by `spread_mm` on average, drawn about `center_mm` as the papers draw
    starts; they come in pairs, a motion and its inverse, so that they lie evenly about the middle. The same seed gives
    the same motions.
    """
    pairs = count // 2
    identity = Rigid.identity()
    if pairs == 0:
        return start[None]
    generator = torch.Generator().manual_seed(seed)
    target = torch.full((pairs,), spread_mm, dtype=torch.float64)
    points = points_mm.double().expand(pairs, -1, -1)
    drawn = draw_perturbation(points, center_mm.double().expand(pairs, -1), target, generator)
    back = drawn.inverse()
    motions = [identity, *(motion for k in range(pairs) for motion in (drawn[k], back[k]))][:count]
    return start @ Rigid.stack(motions)


def _weighted_mean(transforms: Rigid, weight: Tensor, center_mm: Vector) -> Rigid:
    share = weight / weight.sum()
    rotation = nearest_rotation((share[:, None, None] * transforms.rotation).sum(0))
    place = (share[:, None] * transforms.apply(center_mm[None])[:, 0]).sum(0)
    return Rigid(rotation, place - rotation @ center_mm)
