"""A result along the patient's axes, for what people read, where the header of the fixed image was not believed.

Files keep the coordinates of their headers. Letters (L, P, S), words such as "towards the feet", and the planes of
pictures are the patient's: of axes that a header names wrongly they would mislead.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from crossalign.geometry import Grid, Rigid, quarter_turn
from crossalign.registration.result import RegistrationResult
from crossalign.types import Triple

UNTURNED = 1e-9


def patient_turn(result: RegistrationResult, fixed_to_patient: Tensor | None = None) -> Rigid | None:
    """Return the rotation from the fixed header's axes to the patient's, about the origin; None where they are one.

    It is that of the orientation, the result's or `fixed_to_patient` (3, 3), and of the orientation correction by which
    the networks were run.
    """
    applied = [one.orientation_deg for step in result.steps for one in step.applications]
    rotation = quarter_turn(applied[-1] // 90 if applied else 0)
    if fixed_to_patient is None and result.orientation is not None:
        fixed_to_patient = result.orientation.fixed_to_patient
    if fixed_to_patient is not None:
        rotation = rotation @ fixed_to_patient.to("cpu", torch.float64)
    if float((rotation - torch.eye(3, dtype=torch.float64)).abs().max()) < UNTURNED:
        return None
    return Rigid(rotation, torch.zeros(3, dtype=torch.float64))


def along_patient(result: RegistrationResult, turn: Rigid | None = None) -> RegistrationResult:
    """Return the result with both worlds turned alike, by `turn` or to the patient's axes: distances stay as they are.

    Its transforms and `motion` are then of points along L, P and S, and no longer those of the files.
    """
    turn = patient_turn(result) if turn is None else turn
    if turn is None:
        return result

    def turned(transform: Rigid) -> Rigid:
        return turn @ transform.to("cpu", torch.float64) @ turn.inverse()

    return replace(
        result,
        fixed_to_moving=turned(result.fixed_to_moving),
        initial=turned(result.initial),
        center_mm=turn.apply(result.center_mm.cpu().double()[None])[0],
        steps=tuple(replace(step, fixed_to_moving=turned(step.fixed_to_moving)) for step in result.steps),
    )


def turned_grid(grid: Grid, turn: Rigid) -> Grid:
    """Return the grid of the same voxels in a turned world."""
    a, b, c = (_triple(row) for row in turn.rotation @ torch.tensor(grid.direction, dtype=torch.float64))
    origin = turn.apply(torch.tensor([grid.origin_mm], dtype=torch.float64))[0]
    return Grid(grid.shape, grid.spacing_mm, _triple(origin), (a, b, c))


def motion_text(result: RegistrationResult) -> str:
    """Say how far the structure was moved along the patient's left, back and head, and by which angle it was turned."""
    x, y, z, *_ = along_patient(result).motion().tolist()
    shift = f"{result.shift_mm():.2f} mm (L {x:+.2f}, P {y:+.2f}, S {z:+.2f})"
    return f"{shift} and {result.angle_deg():.2f} degrees"


def _triple(values: torch.Tensor) -> Triple:
    x, y, z = values.tolist()
    return (x + 0.0, y + 0.0, z + 0.0)  # no -0.0
