"""What speaks for and against an answer: the networks are run once more. The twin of `registration.evidence`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossalign.models.stage_settings import StageSettings
from crossalign.onnx_runtime.axes import FARTHEST_DEG, expected_rotation
from crossalign.onnx_runtime.motions import Array, Motion, mean_displacement_mm, mean_motion, perturbed
from crossalign.onnx_runtime.networks import Answer, Network
from crossalign.onnx_runtime.problem import Problem
from crossalign.onnx_runtime.scans import Lattice, Scan

CHECK_MM, GREY_LEVELS, LEAST_VOXELS = 6.0, 12, 1.0


def gather_evidence(problem: Problem, networks: Sequence[Network], found: Motion) -> dict[str, float]:
    """Measure an answer of the problem's frame; {} where no network can be asked."""
    asked = [one for one in networks if one.matches]
    points = problem.points_mm
    if not asked or not found.is_finite():
        return {}
    initials = perturbed(found, points, problem.center_mm, CHECK_MM)
    used = initials[1:2] if len(asked) == 1 else initials[: len(asked)]
    answers, rows = list[Motion](), list[dict[str, float]]()
    for network, initial in zip(asked, used, strict=True):
        again, said = problem.answer(network, initial, prior=False)
        answers.append(again)
        rows.append(_matching(problem, network.settings, said, initial.inverse() @ found))
    evidence = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    if problem.pair.fixed_mask is None:
        del evidence["fixed_dice"]
    middle = mean_motion(answers, points)
    evidence["return_mm"] = float(np.mean([mean_displacement_mm(one, found, points) for one in answers]))
    evidence["parted_mm"] = float(np.mean([mean_displacement_mm(one, middle, points) for one in answers]))
    return evidence | _position(problem, found) | crop_evidence(*problem.crops(asked[0].settings, found))


def crop_evidence(fixed: Array, moving: Array) -> dict[str, float]:
    """Return what two crops (z, y, x) say without a network."""
    inside = _middle(moving)
    return {
        "centre_empty": float((inside <= 0).mean()),
        "moving_rough": _roughness(inside),
        "fixed_rough": _roughness(_middle(fixed)),
        "moving_sd": float(inside.std()),
        "information": _information(fixed, moving),
    }


def _position(problem: Problem, found: Motion) -> dict[str, float]:
    points, pair = problem.points_mm, problem.pair
    numbers = {
        "start_mm": mean_displacement_mm(pair.initial, found, points),
        "start_deg": (pair.initial.inverse() @ found).angle_deg(),
        "outside": 1 - pair.moving.lattice.holds(found.apply(points)),
    }
    if pair.prior:
        prior = expected_rotation(pair.moving.lattice, found, problem.rotation, headers=False)
        numbers["prior_deg"] = FARTHEST_DEG if prior is None else prior.deviation_deg(found)
    return numbers


def _matching(problem: Problem, settings: StageSettings, said: Answer, motion: Motion) -> dict[str, float]:
    """Compare the structure that a network sees with its mask; `motion` leads from the crops to the answer."""
    seen_fixed, seen_moving = (_sigmoid(said.outputs[f"{side}_structure"][0, 0]) for side in ("fixed", "moving"))
    whole = _doubled(seen_fixed) if problem.pair.fixed_mask is None else problem.mask_crop(settings)
    z, y, x = settings.crop_shape
    lattice = Lattice.about(np.zeros(3), (x, y, z), np.full(3, settings.crop_spacing_mm), np.eye(3))
    carried = Scan(whole.astype(np.float32), lattice).resampled(lattice, problem.to_crop(motion).inverse()).voxels
    fixed, moving = _halved(whole), _halved(carried)
    size = max(float(seen_moving.sum()), LEAST_VOXELS)
    gap = _center_mm(seen_moving, settings.crop_spacing_mm) - _center_mm(moving, settings.crop_spacing_mm)
    return {
        "fit_residual_mm": float(said.outputs["fit_residual_mm"][0]),
        "fixed_dice": _dice(seen_fixed, fixed),
        "moving_dice": _dice(seen_moving, moving),
        "center_gap_mm": float(np.linalg.norm(gap)),
        "volume_ratio": float(abs(np.log(size / max(float(moving.sum()), LEAST_VOXELS)))),
        "blur": float(4 * (seen_moving**2 * (1 - seen_moving)).sum() / size),
        "check_sre_mm": said.expected_sre_mm or 0.0,
    }


def _sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _dice(a: Array, b: Array) -> float:
    return float(2 * (a * b).sum() / max(float((a**2).sum() + (b**2).sum()), LEAST_VOXELS))


def _center_mm(volume: Array, spacing_mm: float) -> Array:
    axes = [(np.arange(size) - (size - 1) / 2) * 2 * spacing_mm for size in volume.shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    total = max(float(volume.sum()), LEAST_VOXELS)
    return np.array([float((volume * axis).sum()) / total for axis in (x, y, z)])


def _halved(volume: Array) -> Array:
    """Average boxes of 2 x 2 x 2 voxels."""
    z, y, x = (size // 2 for size in volume.shape)
    return volume[: 2 * z, : 2 * y, : 2 * x].reshape(z, 2, y, 2, x, 2).mean((1, 3, 5))


def _doubled(volume: Array) -> Array:
    """Interpolate to twice the size along each axis, trilinear."""
    for axis in range(3):
        line = np.moveaxis(volume, axis, 0)
        before, after = np.concatenate((line[:1], line[:-1])), np.concatenate((line[1:], line[-1:]))
        pairs = np.stack((0.75 * line + 0.25 * before, 0.75 * line + 0.25 * after), 1)
        volume = np.moveaxis(pairs.reshape(-1, *line.shape[1:]), 0, axis)
    return volume


def _middle(volume: Array) -> Array:
    z, y, x = (slice(size * 3 // 16, size - size * 3 // 16) for size in volume.shape)
    return volume[z, y, x]


def _roughness(volume: Array) -> float:
    variance = float(volume.var(dtype=np.float64))
    if variance < 1e-8:
        return 0.0
    return float(np.mean([(np.diff(volume, axis=axis) ** 2).mean() for axis in range(3)]) / (2 * variance))


def _information(a: Array, b: Array) -> float:
    both = (a > 0) & (b > 0)
    if both.sum() < 10 * GREY_LEVELS**2:
        return 0.0
    levels = _ranks(a[both]) * GREY_LEVELS + _ranks(b[both])
    joint = np.bincount(levels, minlength=GREY_LEVELS**2).reshape(GREY_LEVELS, GREY_LEVELS) / len(levels)
    rows, columns, together = (_entropy(part) for part in (joint.sum(0), joint.sum(1), joint))
    return 2 * (rows + columns - together) / (rows + columns) if rows + columns > 0 else 0.0


def _ranks(values: Array) -> Array:
    low, high = np.quantile(values[:: max(1, len(values) // 4096)], (0.01, 0.99)).tolist()
    steps = (values - np.float32(low)) / np.float32(max(high - low, 1e-6)) * GREY_LEVELS
    return np.clip(steps.astype(np.int64), 0, GREY_LEVELS - 1)


def _entropy(fractions: Array) -> float:
    positive = fractions[fractions > 0]
    return float(-(positive * np.log(positive)).sum())
