"""Orientation codes, and the rotations between the axes that a header names and the patient's.

A code says where the voxel axes i, j and k point, as nibabel's `aff2axcodes` writes it: LPS is left, posterior,
superior. A header may name the axes wrongly. What it cannot do is mirror the patient: of the 48 codes only the 24 of
the header's handedness can be right.
"""

from __future__ import annotations

from itertools import permutations, product

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry.grid import Grid
from crossalign.geometry.rigid import axis_orientations
from crossalign.input import excerpt
from crossalign.types import Rotations

POSITIVE, NEGATIVE = "LPS", "RAI"  # the names of the axes x, y and z, in the direction in which they count and against
HALF_TURNS = 3


def orientation_codes() -> tuple[str, ...]:
    """Return all 48 codes: LPS first."""
    letters = tuple(zip(POSITIVE, NEGATIVE, strict=True))
    return tuple(
        "".join(letters[axis][sign] for axis, sign in zip(order, signs, strict=True)) for order, signs in _ways()
    )


def orientation_code(grid: Grid) -> str:
    """Return the code of a grid: where each of its axes points, to the nearest direction."""
    return code_of(nearest_directions(grid))


def code_of(directions: Float[Tensor, "3 3"]) -> str:
    """Return the code of voxel axes whose directions are the columns of a signed permutation (3, 3)."""
    columns = directions.mT.tolist()
    axes = [max(range(3), key=lambda axis: abs(column[axis])) for column in columns]
    return "".join(
        (POSITIVE if column[axis] > 0 else NEGATIVE)[axis] for column, axis in zip(columns, axes, strict=True)
    )


def code_directions(code: str) -> Float[Tensor, "3 3"]:
    """Return the directions of the voxel axes as columns (3, 3), float64; raises InputError for no code."""
    if len(code) != 3 or {letter for letter in code if letter in POSITIVE + NEGATIVE} != set(code):
        raise InputError(_no_code(code))
    axes = [(POSITIVE if letter in POSITIVE else NEGATIVE).index(letter) for letter in code]
    if len(set(axes)) != 3:
        raise InputError(_no_code(code))
    directions = torch.zeros(3, 3, dtype=torch.float64)
    for column, (letter, axis) in enumerate(zip(code, axes, strict=True)):
        directions[axis, column] = 1.0 if letter in POSITIVE else -1.0
    return directions


def nearest_directions(grid: Grid) -> Float[Tensor, "3 3"]:
    """Return the directions of a grid's axes, each rounded to the axis of the world that it is nearest to, (3, 3)."""
    direction = torch.tensor(grid.direction, dtype=torch.float64)
    every = axis_orientations().double()
    return every[int((every * direction).sum((-1, -2)).argmax())]


def rotation_of_code(code: str, grid: Grid) -> Float[Tensor, "3 3"]:
    """Return the rotation (3, 3), float64, from the axes that a grid's header names to the patient's.

    Both are to the nearest axis: an oblique grid keeps the angle by which it lies aslant. Raises InputError for no
    code, and for one of the other handedness, which would mirror the patient.
    """
    named, header = code_directions(code), nearest_directions(grid)
    rotation = named @ header.mT
    if float(torch.linalg.det(rotation)) < 0:
        raise InputError(
            f"the orientation {code} would mirror the patient: the header says {code_of(header)}, which can be turned "
            f"into {', '.join(codes_like(grid)[1:])}, but not into its mirror image"
        )
    return rotation


def codes_like(grid: Grid) -> tuple[str, ...]:
    """Return the 24 codes that a grid may have, its own first, in the order of `orientation_rotations`."""
    header = nearest_directions(grid)
    return tuple(code_of(rotation @ header) for rotation in orientation_rotations())


def orientation_rotations() -> Rotations:
    """Return the rotations (24, 3, 3), float64, that bring axes to axes: identity, half turns about x, y, z, others."""
    every = axis_orientations().double()
    every = every[torch.linalg.det(every) > 0]
    diagonal = every.diagonal(dim1=-2, dim2=-1)
    rank = torch.where(diagonal.abs().sum(-1) < HALF_TURNS, HALF_TURNS + 1.0, 0.0)
    half = (diagonal.abs().sum(-1) == HALF_TURNS) & (diagonal.sum(-1) < 0)
    rank = torch.where(half, diagonal.argmax(-1) + 1.0, rank)
    return every[torch.argsort(rank, stable=True)]


def _ways() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(order, signs) for order in permutations(range(3)) for signs in product((0, 1), repeat=3)]


def _no_code(code: str) -> str:
    return (
        f"'{excerpt(code, 40)}' is no orientation: write where the voxel axes i, j and k point, one letter of L or "
        "R, P or A and S or I (LPS, RAS, ...), header (what the header says) or auto"
    )
