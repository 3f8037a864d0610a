"""Starts at a chosen distance from the truth: the papers' perturbation, made exact."""

import torch

from crossalign.errors import InputError
from crossalign.geometry.rigid import Rigid, mean_displacement_mm
from crossalign.types import Distances, Points, Vectors

RANGE_MM = 5.0
RANGE_DEG = 6.0


def draw_perturbation(
    points_mm: Points,
    center_mm: Vectors,
    target_sre_mm: Distances,
    generator: torch.Generator,
    tolerance_mm: float = 1e-3,
) -> Rigid:
    """Draw one rigid motion for each target that moves the points (b, n, 3) by that mean distance (b,).

    Each of the six parameters is U(-5, 5) mm or U(-6, 6) degrees (the MICCAI paper) about `center_mm` (b, 3); then all
    six are scaled together until the mean displacement is the target, which one scaling misses by about 0.6 mm.
    A start is `truth @ draw_perturbation(...)`. Drawn on the generator's device; raises InputError for a target
    below 0 or not finite, and where 40 scalings do not reach it (200 mm on a gland is reached).
    """
    if not bool(((target_sre_mm >= 0) & target_sre_mm.isfinite()).all()):
        raise InputError(f"a start's SRE must be 0 mm or more and finite, got {target_sre_mm.tolist()} mm")
    unit = torch.rand(len(target_sre_mm), 6, generator=generator, device=generator.device, dtype=torch.float64) * 2 - 1
    ranges = torch.tensor([RANGE_MM] * 3 + [RANGE_DEG] * 3, dtype=torch.float64)
    drawn = (unit * ranges.to(unit)).to(points_mm)
    identity = Rigid.identity(points_mm.dtype).to(points_mm.device, points_mm.dtype)
    scale = torch.ones_like(target_sre_mm)
    for _ in range(40):
        motion = Rigid.from_parameters(drawn * scale[:, None], center_mm)
        reached = mean_displacement_mm(motion, identity, points_mm)
        done = (reached - target_sre_mm).abs() <= tolerance_mm
        if bool(done.all()):
            return motion
        scale = torch.where(
            done, scale, scale * target_sre_mm / reached
        )  # keeps a target of 0, and the rest of a batch
    worst = float(target_sre_mm[~done].max())
    raise InputError(f"no perturbation of these points reaches {worst:.1f} mm: ask for a smaller start SRE")
