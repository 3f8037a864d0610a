"""The orientation of a site's scans as codes name it: the one correction about z that all of them need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from crossalign.data.scan_pairs import ScanPair
from crossalign.errors import InputError
from crossalign.geometry import quarter_turn, rotation_of_code
from crossalign.images import read_grid

HEADER = "header"
Degrees: TypeAlias = Literal[0, 90, 180, 270]
EVERY: tuple[Degrees, ...] = (0, 90, 180, 270)


def correction_of(pairs: Sequence[ScanPair], fixed_orientation: str, moving_orientation: str) -> Degrees:
    """Return the rotation about z, degrees, that brings the axes of every scan from where its header says to the codes.

    A code says where the voxel axes of all fixed, or all moving, images point; `header` that they point as they say.
    Raises InputError where the scans need different corrections, or a rotation about another axis: networks correct one
    rotation about z, of both scans alike.
    """
    found: dict[Degrees, str] = {}
    for pair in pairs:
        for side, path, code in (("fixed", pair.fixed, fixed_orientation), ("moving", pair.moving, moving_orientation)):
            found.setdefault(_degrees(code, path, f"{pair.name}, {side} image"), f"the {side} image of {pair.name}")
    if len(found) > 1:
        listed = ", ".join(f"{what} needs {degrees} degrees" for degrees, what in found.items())
        raise InputError(
            f"--fixed-orientation {fixed_orientation}, --moving-orientation {moving_orientation}: {listed}, but the "
            "networks correct both scans of all pairs alike: name codes that ask for one correction, or mend the "
            "headers"
        )
    return next(iter(found), EVERY[0])


def _degrees(code: str, path: Path, what: str) -> Degrees:
    if code == HEADER:
        return 0
    rotation = rotation_of_code(code, read_grid(path))
    for degrees in EVERY:
        if torch.equal(rotation, quarter_turn(degrees // 90)):
            return degrees
    raise InputError(
        f"{what}: its header is {code} rotated about another axis than z, which the networks do not correct: mend the "
        "headers"
    )
