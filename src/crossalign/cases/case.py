"""A case in memory: two scans, the gland, the truth and the landmarks."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from crossalign.cases.manifest import Case
from crossalign.cases.surface import surface_points
from crossalign.errors import ImageError, ManifestError
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, read_image, read_label_map, read_transform
from crossalign.types import Points


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Corresponding points (k, 3) in both images, float64, LPS mm."""

    names: tuple[str, ...]
    fixed_mm: Points
    moving_mm: Points


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """Everything that a manifest's row points to; `fixed_to_moving` is the reference."""

    name: str
    patient: str
    split: str
    fixed: Image
    moving: Image
    fixed_mask: LabelMap
    fixed_to_moving: Rigid
    surface_mm: Points
    moving_mask: LabelMap | None = None
    landmarks: Landmarks | None = None


def load_case(case: Case) -> LoadedCase:
    """Read a case's files; raises ImageError, TransformError or ManifestError."""
    fixed, mask = read_image(case.fixed), read_label_map(case.fixed_mask)
    if not mask.grid.agrees_with(fixed.grid):
        raise ImageError(f"case {case.name}: the mask {mask.name} is not on the grid of {fixed.name}: resample it there")
    return LoadedCase(
        name=case.name,
        patient=case.patient,
        split=case.split,
        fixed=fixed,
        moving=read_image(case.moving),
        fixed_mask=mask,
        fixed_to_moving=read_transform(case.reference),
        surface_mm=surface_points(mask),
        moving_mask=read_label_map(case.moving_mask) if case.moving_mask else None,
        landmarks=read_landmarks(case.landmarks) if case.landmarks else None,
    )


def read_landmarks(path: Path) -> Landmarks | None:
    """Read a landmark CSV: a name, then six numbers (fixed x, y, z, moving x, y, z), mm; None where it has no rows."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    header = [column.strip().lower() for column in rows[0]] if rows else []
    if len(header) != 7 or [column[-2:] for column in header[1:]] != ["_x", "_y", "_z"] * 2:
        raise ManifestError(f"{path.name}, row 1: expected name,fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z, got {','.join(header)}")
    numbers = [_numbers(path.name, number, row) for number, row in enumerate(rows[1:], start=2)]
    if not numbers:
        return None
    table = torch.tensor(numbers, dtype=torch.float64)
    return Landmarks(tuple(row[0] for row in rows[1:]), table[:, :3], table[:, 3:])


def _numbers(name: str, number: int, row: list[str]) -> list[float]:
    try:
        values = [float(value) for value in row[1:]]
    except ValueError as error:
        raise ManifestError(f"{name}, row {number}: {error}") from error
    if len(values) != 6 or not all(math.isfinite(value) for value in values):
        raise ManifestError(f"{name}, row {number}: expected a name and six finite numbers, got {len(row)} values")
    return values
