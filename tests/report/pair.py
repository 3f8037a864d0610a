"""A small made-up pair: a bright gland in a striped scan, and the same scan through a known transform."""

from typing import Any

import torch

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap
from crossalign.registration.problem import Step
from crossalign.registration.result import RegistrationResult

CENTER_MM = torch.tensor([12.0, -8.0, 30.0], dtype=torch.float64)
FLIPPED = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))


def grid() -> Grid:
    x, y, z = (CENTER_MM - torch.tensor([-45.0, -42.0, 39.0], dtype=torch.float64)).tolist()
    return Grid((27, 29, 31), (3.0, 3.0, 3.0), (x, y, z), FLIPPED)


def gland(center_mm: torch.Tensor = CENTER_MM) -> LabelMap:
    scale = torch.tensor([20.0, 16.0, 14.0], dtype=torch.float64)
    inside = (((grid().points_mm() - center_mm) / scale) ** 2).sum(-1) < 1
    return LabelMap(inside.long(), grid(), "smith_john_gland.nii.gz")


def scan(name: str = "smith_john.nii.gz", center_mm: torch.Tensor = CENTER_MM) -> Image:
    points = grid().points_mm() - center_mm
    stripes = 40 + 30 * (points / 6).sin().prod(-1)
    return Image((stripes + 100 * (gland(center_mm).labels != 0)).float(), grid(), name)


def shift(x: float, y: float, z: float) -> Rigid:
    return Rigid(torch.eye(3, dtype=torch.float64), torch.tensor([x, y, z], dtype=torch.float64))


def result(**changes: Any) -> RegistrationResult:
    """From a start 10 mm off to the truth; the moving scan is the fixed one, so the truth is the identity."""
    fields: dict[str, Any] = {
        "fixed_to_moving": Rigid.identity(),
        "initial": shift(8.0, 0.0, -6.0),
        "center_mm": CENTER_MM,
        "method": "mi",
        "steps": (Step("coarse", shift(3.0, 0.0, 0.0), 0.5), Step("fine", Rigid.identity(), 1.25)),
        "seconds": 1.75,
        "warnings": (),
        "settings": {"bins": "32"},
    }
    return RegistrationResult(**(fields | changes))
