"""Whether the fit of two surfaces is to be trusted, and how far off it is to be expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.images import LabelMap
from crossalign.registration.iterative.method_settings import SurfaceSettings
from crossalign.registration.iterative.surface_fit import Side, SurfaceFit, rivals
from crossalign.registration.iterative.verdict import rotated_orientations
from crossalign.registration.problem import Expectation, Problem

MEAN_OF_LENGTH = 0.92  # the mean length of a Gaussian vector over its root mean square length, in three dimensions
POSITION_NOISE_MM = 0.9  # what the mean distance of two surfaces is uncertain by where it tells of the position
# The expected SRE is that of the posterior, and of the part of the residual that a rigid motion cannot mend. Set by
# hand; real pairs bear it out, and weights that were fitted to them rank others no better: docs/lab/experiments.md.
BASE_FRACTION, PER_POSTERIOR, PER_RESIDUAL = 0.0, 0.6, 0.8
# Of trusted results whose outlines are right, cut short or of another patient, 90 % of the true errors lie under so
# many times the expected one: on 56 pairs of the training split, judged on 18 others.
BOUND_FACTOR, BOUND_PROBABILITY = 1.8, 0.9
MOST_RESIDUAL = 0.09  # of the structure's extent
MOST_EXPECTED = 0.16  # of the structure's extent
MOST_RATIO = 2.0  # of the two volumes
LEAST_SEEN = 0.6
RIVAL_RESIDUAL = 0.75  # of the answer's own residual


@dataclass(frozen=True, eq=False)
class SurfaceEvidence:
    """What speaks for and against a fit, lengths in mm of the patient.

    `covariance` (6, 6) is that of the motion D with truth = answer @ D about the structure's centre, translation (mm)
    then rotation (degrees), along the fixed world's axes. `posterior_sre_mm` is the SRE that it stands for,
    `residual_mm` the root mean square distance of the surfaces at the answer, `rival_mm` the least one of the other 23
    orientations of the moving structure, `volume_ratio` that of the larger to the smaller structure, `seen` the
    fraction of both surfaces that lies in both fields of view.
    """

    covariance: Tensor
    posterior_sre_mm: float
    residual_mm: float
    rival_mm: float
    volume_ratio: float
    seen: float

    def values(self) -> dict[str, float]:
        """Return the numbers by name, the standard deviations along the fixed world's axes among them."""
        sd = self.covariance.diagonal().sqrt().tolist()
        names = ("sd_tx_mm", "sd_ty_mm", "sd_tz_mm", "sd_rx_deg", "sd_ry_deg", "sd_rz_deg")
        return {
            "residual_mm": self.residual_mm,
            "rival_residual_mm": self.rival_mm,
            "posterior_sre_mm": self.posterior_sre_mm,
            "volume_ratio": self.volume_ratio,
            "seen_fraction": self.seen,
            **dict(zip(names, sd, strict=True)),
        }


def gather_surface_evidence(
    fixed: Side, moving: Side, fit: SurfaceFit, settings: SurfaceSettings, problem: Problem, to_world: Tensor
) -> SurfaceEvidence:
    """Measure a fit in its working frame; `to_world` (3, 3) is scale^-1 times the rotation from it to the world."""
    scale = float(torch.linalg.det(to_world)) ** (1 / 3)
    covariance = _covariance(fit, settings, problem.patient_rotation)
    arm = fixed.surface.points_mm - fixed.center_mm
    others = rivals(fixed, moving, _other_rotations(fit), settings)
    rival = min((one.residual_mm for one in others if one.seen >= LEAST_SEEN), default=float("inf"))
    turn = _block(to_world, to_world / scale * (180 / torch.pi))
    volumes = [_volume_mm3(mask) for mask in (problem.fixed_mask, problem.moving_mask) if mask]
    return SurfaceEvidence(
        covariance=turn @ covariance @ turn.T,
        posterior_sre_mm=scale * _mean_length(covariance, arm, fixed.surface.area),
        residual_mm=scale * fit.residual_mm,
        rival_mm=scale * rival,
        volume_ratio=max(volumes) / min(volumes),
        seen=fit.seen,
    )


def expectation_of(evidence: SurfaceEvidence, extent_mm: float) -> Expectation:
    """Return the SRE to expect, mm, and reasons not to trust; `extent_mm` is the structure's size."""
    expected = (
        BASE_FRACTION * extent_mm + PER_POSTERIOR * evidence.posterior_sre_mm + PER_RESIDUAL * evidence.residual_mm
    )
    found = Expectation(expected, True, evidence=evidence.values(), covariance=_rows(evidence.covariance))
    reasons = _reasons(evidence, expected, extent_mm)
    return found.untrusted(*reasons) if reasons else found.bounded(BOUND_FACTOR * expected, BOUND_PROBABILITY)


def _reasons(evidence: SurfaceEvidence, expected_mm: float, extent_mm: float) -> Sequence[str]:
    residual = f"{evidence.residual_mm:.1f} mm"
    reasons: list[str] = []
    if evidence.residual_mm > MOST_RESIDUAL * extent_mm or evidence.volume_ratio > MOST_RATIO:
        reasons.append(
            f"the surfaces lie {residual} apart where they fit best, and one structure has "
            f"{evidence.volume_ratio:.1f} times the volume of the other: check that both masks mark the same structure "
            "of one patient, whole (--mask-label, --moving-mask-label), or give one mask and a network (--method)"
        )
    if evidence.rival_mm < RIVAL_RESIDUAL * evidence.residual_mm:
        reasons.append(
            f"with one scan rotated by 90 or 180 degrees the surfaces fit better ({evidence.rival_mm:.1f} mm apart "
            f"against {residual}): check the orientation of both headers, or give another initialisation (--initial)"
        )
    if evidence.seen < LEAST_SEEN:
        reasons.append(
            f"only {evidence.seen:.0%} of the two surfaces lies in both fields of view: give masks of the whole "
            "structure, or use a network with the fixed mask alone (--method)"
        )
    if not reasons and expected_mm > MOST_EXPECTED * extent_mm:
        reasons.append(
            f"its expected SRE is {expected_mm:.1f} mm, over the limit of {MOST_EXPECTED * extent_mm:.1f} mm: the "
            "surfaces leave the rotation open; begin with the right rotation (--initial), or give landmarks "
            "(--initial landmarks)"
        )
    return reasons


def _covariance(fit: SurfaceFit, settings: SurfaceSettings, patient_rotation: Tensor) -> Tensor:
    """Return that of translation (mm), then rotation (rad), along the working frame's axes."""
    noise = torch.diag(torch.tensor(settings.noise_mm, dtype=torch.float64))
    position = POSITION_NOISE_MM * torch.eye(3, dtype=torch.float64)
    scale = _block(patient_rotation.mT @ noise @ patient_rotation, position)
    floor = 1e-3 * torch.eye(6, dtype=torch.float64)  # what the surfaces leave open is uncertain, not infinitely so
    covariance = scale @ torch.linalg.inv(fit.normal + floor) @ scale
    order = torch.tensor([3, 4, 5, 0, 1, 2])
    return covariance[order][:, order]


def _mean_length(covariance: Tensor, arm: Tensor, area: Tensor) -> float:
    """Return how far a motion of this covariance moves the points with these arms (n, 3) on average, mm."""
    zero = torch.zeros(len(arm), dtype=torch.float64)
    x, y, z = arm.unbind(-1)
    cross = torch.stack((zero, z, -y, -z, zero, x, y, -x, zero), -1).reshape(-1, 3, 3)  # w x arm = cross @ w
    moved = torch.cat((torch.eye(3, dtype=torch.float64).expand(len(arm), 3, 3), cross), -1)
    square = (moved @ covariance @ moved.mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    return MEAN_OF_LENGTH * float((area * square.sqrt()).sum())


def _other_rotations(fit: SurfaceFit) -> list[Tensor]:
    return [fit.fixed_to_moving.rotation @ one.rotation for one in rotated_orientations()]


def _volume_mm3(mask: LabelMap) -> float:
    x, y, z = mask.grid.spacing_mm

    return mask.foreground_count() * x * y * z


def _block(first: Tensor, second: Tensor) -> Tensor:
    """Return the matrix (6, 6) that has two others (3, 3) on its diagonal."""
    zero = torch.zeros_like(first)
    return torch.cat((torch.cat((first, zero), 1), torch.cat((zero, second), 1)))


def _rows(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
