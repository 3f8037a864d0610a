"""What speaks for and against the answer of networks: they are run once more from about it, and their crops compared.

The calibration of a model (`crossalign.models.Calibration`) says how these numbers make an expected error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from crossalign.geometry import Rigid, inside_fraction, mean_displacement_mm, sample
from crossalign.models.arrangement import Stage
from crossalign.networks.crop import crop_points
from crossalign.networks.match_evidence import ShowsMatching, StructureCrops, matching_evidence
from crossalign.registration.consensus import perturbed_initialisations
from crossalign.registration.context import RegistrationContext
from crossalign.registration.pose_prior import FARTHEST_DEG, expected_rotation
from crossalign.types import Map, Volume

# Each piece of evidence that a calibration may use; True where less of it is worse.
EVIDENCE: Mapping[str, bool] = {
    "check_sre_mm": False,
    "return_mm": False,
    "parted_mm": False,
    "fit_residual_mm": False,
    "fixed_dice": True,
    "moving_dice": True,
    "center_gap_mm": False,
    "volume_ratio": False,
    "blur": False,
    "start_mm": False,
    "start_deg": False,
    "prior_deg": False,
    "unlikely": False,
    "outside": False,
    "centre_empty": False,
    "moving_rough": False,
    "fixed_rough": False,
    "moving_sd": True,
    "information": False,
}
CHECK_MM = 6.0  # how far from the answer the networks are run again, over the structure's surface
GREY_LEVELS = 12
LEAST_PROBABILITY = 1e-6


@torch.no_grad()
def gather_evidence(context: RegistrationContext, stages: Sequence[Stage], found: Rigid) -> dict[str, float]:
    """Measure an answer, fixed to moving in the context's frame; {} where no network can be asked.

    Each stage is run once from its own perturbation of the answer, 6 mm. `return_mm` is how far their new answers lie
    from the answer on average, `parted_mm` how far from their own mean, `check_sre_mm` the error that they expect. The
    means of `matching_evidence` over the stages are beside it, and what needs no network: `start_mm` (distance of the
    answer from the initial transform), `start_deg`, `prior_deg` (its angle from the mean of the rotation prior),
    `unlikely` (-log10 of the probability of the scans' orientation, where it was asked for), `outside` (fraction of the
    structure outside the moving image), and what the crops show (`crop_evidence`).
    """
    asked = [(stage, stage.network) for stage in stages if isinstance(stage.network, ShowsMatching)]
    points, problem = context.points_mm, context.problem
    if not asked or not bool(found.matrix().isfinite().all()):
        return {}
    initials = perturbed_initialisations(found, points, problem.center_mm, max(len(asked), 2), CHECK_MM, 0)
    answers, rows = list[Rigid](), list[dict[str, float]]()
    for number, (stage, network) in enumerate(asked):
        initial = initials[number : number + 1] if len(asked) > 1 else initials[1:2]
        fixed, moving = context.crops_at(stage, initial)
        matching = network.match(fixed, moving)
        structure = _structure(context, stage, initial[0].inverse() @ found, matching.fixed_structure)
        row = matching_evidence(matching, structure)
        row["check_sre_mm"] = float(network.expected_sre_mm(matching)[0])
        rows.append(row)
        parameters = matching.motion.to_parameters(torch.zeros(3, device=fixed.device)).double().cpu()
        answers.append(initial @ context.from_crop(parameters))
    again = Rigid.cat(answers)
    evidence = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    if problem.fixed_mask is None:
        del evidence["fixed_dice"]
    back = mean_displacement_mm(again, found, points.double())
    evidence["return_mm"] = float(back.mean())
    evidence["parted_mm"] = float(
        mean_displacement_mm(again, context.mean([one[None] for one in again])[0], points).mean()
    )
    return evidence | _position(context, found) | crop_evidence(*context.crops_at(asked[0][0], found[None]))


def crop_evidence(fixed: Volume, moving: Map) -> dict[str, float]:
    """Return what two crops (1, 1, z, y, x) that should show the same place say without a network.

    `centre_empty`: fraction of the middle of the moving crop that shows nothing, `moving_sd` the standard deviation of
    its grey levels (0 to 1). `moving_rough`, `fixed_rough`: mean squared difference of neighbours over twice the
    variance, 0 (smooth) to 1 (noise). `information`: uncertainty coefficient of both grey levels, 0 to 1: high where
    both scans are of one modality.
    """
    a, b = fixed[0, 0].float().cpu(), moving[0, 0].float().cpu()
    inside = _middle(b)
    return {
        "centre_empty": float((inside <= 0).float().mean()),
        "moving_rough": _roughness(inside),
        "fixed_rough": _roughness(_middle(a)),
        "moving_sd": float(inside.std(correction=0)),
        "information": _information(a, b),
    }


def _position(context: RegistrationContext, found: Rigid) -> dict[str, float]:
    """Say where an answer lies: from the initial transform, from the prior, in the moving image."""
    problem, points = context.problem, context.points_mm.double()
    moved = problem.initial.inverse() @ found
    return {
        **_angle(context, found),
        **_recognition(context),
        "start_mm": float(mean_displacement_mm(problem.initial, found, points)),
        "start_deg": float(moved.angle_deg()),
        "outside": 1 - inside_fraction(found.apply(points), problem.moving.grid),
    }


def _angle(context: RegistrationContext, found: Rigid) -> dict[str, float]:
    """Say how far an answer's rotation is from the mean of the prior, degrees; nothing where nothing is assumed."""
    problem = context.problem
    if problem.prior is None:
        return {}
    prior = expected_rotation(problem.prior, problem.moving.grid, found, context.rotation, headers=False)
    return {"prior_deg": FARTHEST_DEG if prior is None else prior.deviation_deg(found)}


def _recognition(context: RegistrationContext) -> dict[str, float]:
    """Say how unlikely the orientation is by which the registration began: 0 where it is certain, 1 for one in ten."""
    probability = context.problem.orientation_probability
    return {} if probability is None else {"unlikely": -math.log10(max(probability, LEAST_PROBABILITY))}


def _structure(context: RegistrationContext, stage: Stage, motion: Rigid, seen: Volume) -> StructureCrops:
    """Return where the structure is in both crops; `motion` leads from where the moving crop was cut to the answer.

    Without a mask it is what the network itself sees in the fixed crop.
    """
    spacing = stage.settings.crop_spacing_mm
    if context.problem.fixed_mask is None:
        fixed = torch.nn.functional.interpolate(seen.float().sigmoid(), scale_factor=2.0, mode="trilinear")
    else:
        fixed = context.mask_crop(stage)
    back = Rigid.from_parameters(context.to_crop(motion), torch.zeros(3)).inverse()
    points = back.apply(crop_points(stage.settings.crop_shape, spacing).flatten(0, 2))
    middle = torch.tensor([(size - 1) / 2 for size in reversed(stage.settings.crop_shape)], dtype=torch.float64)
    voxels = (points / spacing + middle).reshape(1, *stage.settings.crop_shape, 3)
    return StructureCrops(fixed, sample(fixed.cpu(), voxels).to(fixed), spacing)


def _middle(volume: Tensor) -> Tensor:
    """Return the middle of a crop (z, y, x): without three sixteenths of it at each side."""
    z, y, x = (slice(size * 3 // 16, size - size * 3 // 16) for size in volume.shape)
    return volume[z, y, x]


def _roughness(volume: Tensor) -> float:
    variance = float(volume.var(correction=0))
    if variance < 1e-8:
        return 0.0
    steps = [volume.diff(dim=axis).square().mean() for axis in range(3)]
    return float(sum(steps)) / 3 / (2 * variance)


def _information(a: Tensor, b: Tensor) -> float:
    """Return the uncertainty coefficient 2 I / (H + H), 0 to 1, where both show something; 0 where too little does."""
    both = (a > 0) & (b > 0)
    if int(both.sum()) < 10 * GREY_LEVELS**2:
        return 0.0
    first, second = (_ranks(one[both]) for one in (a, b))
    joint = torch.bincount(first * GREY_LEVELS + second, minlength=GREY_LEVELS**2).double()
    joint = joint.reshape(GREY_LEVELS, GREY_LEVELS) / joint.sum()
    rows, columns, together = (_entropy(part) for part in (joint.sum(0), joint.sum(1), joint))
    return (2 * (rows + columns - together) / (rows + columns)) if rows + columns > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    low, high = torch.quantile(values[:: max(1, len(values) // 4096)], torch.tensor([0.01, 0.99])).tolist()
    scaled = (values - low) / max(high - low, 1e-6) * GREY_LEVELS
    return scaled.long().clamp(0, GREY_LEVELS - 1)


def _entropy(fractions: Tensor) -> float:
    positive = fractions[fractions > 0]
    return float(-(positive * positive.log()).sum())
