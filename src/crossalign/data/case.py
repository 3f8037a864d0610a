"""A case in memory: two scans, the structure, the truth and the landmarks."""

from dataclasses import dataclass
from pathlib import Path

import torch

from crossalign.data.manifest import Case, read_rows
from crossalign.errors import ImageError, ManifestError
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, on_grid_of, read_image, read_mask, read_transform
from crossalign.images.surface import surface_points
from crossalign.input import excerpt, finite_number
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
    fixed, moving = read_image(case.fixed), read_image(case.moving)
    mask = load_mask(case.name, case.fixed_mask, fixed)
    return LoadedCase(
        name=case.name,
        patient=case.patient,
        split=case.split,
        fixed=fixed,
        moving=moving,
        fixed_mask=mask,
        fixed_to_moving=read_transform(case.reference),
        surface_mm=surface_points(mask),
        moving_mask=load_mask(case.name, case.moving_mask, moving) if case.moving_mask else None,
        landmarks=read_landmarks(case.landmarks) if case.landmarks else None,
    )


def load_mask(case: str, path: Path, image: Image) -> LabelMap:
    """Read the mask of a case's image; resampled onto the image's grid; raises ImageError that names the case."""
    try:
        mask = read_mask(path, advice="write a mask that holds the structure alone", image=image.grid)
        return on_grid_of(mask, image)
    except ImageError as error:
        raise ImageError(f"case {case}: {error}") from error


def read_landmarks(path: Path) -> Landmarks | None:
    """Read a landmark CSV: a name, then six numbers (fixed x, y, z, moving x, y, z), mm; None where it has no rows.

    Raises ManifestError naming the row and the column (the header is row 1).
    """
    rows = read_rows(path)
    name = excerpt(path.name)
    header = [column.lower() for column in rows[0][1]] if rows else []
    if len(header) != 7 or [column[-2:] for column in header[1:]] != ["_x", "_y", "_z"] * 2:
        expected = "name,fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z"
        got = excerpt(",".join(header)) or "nothing"
        raise ManifestError(f"{name}, row 1: expected {expected}, got {got}")
    numbers = [_numbers(f"{name}, row {number}", header, row) for number, row in rows[1:]]
    if not numbers:
        return None
    table = torch.tensor(numbers, dtype=torch.float64)
    return Landmarks(tuple(row[0] for _, row in rows[1:]), table[:, :3], table[:, 3:])


def _numbers(where: str, header: list[str], row: list[str]) -> list[float]:
    if len(row) != len(header):
        raise ManifestError(f"{where}: expected a name and six numbers, got {len(row)} values")
    return [_number(where, column, text) for column, text in zip(header[1:], row[1:], strict=True)]


def _number(where: str, column: str, text: str) -> float:
    value = finite_number(text)
    if value is None:
        raise ManifestError(
            f"{where}, column '{excerpt(column)}': got '{excerpt(text, 40)}', expected a finite number (mm)"
        )
    return value
