"""Draws of grids, rotations and rigid transforms for the laws."""

import itertools
import math

import torch
from hypothesis import strategies as st

from crossalign.geometry import Grid, Rigid, euler_to_rotation
from crossalign.types import Rotations

# All 48 ways to name and flip axes; half of them mirror, as image files' directions may.
SIGNED_AXES = [
    torch.diag(torch.tensor(signs, dtype=torch.float64))[list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


def triples(low: float, high: float) -> st.SearchStrategy[tuple[float, float, float]]:
    return st.tuples(numbers(low, high), numbers(low, high), numbers(low, high))


@st.composite
def rotations(draw: st.DrawFn, gimbal_lock: bool = True) -> Rotations:
    most = math.pi / 2 if gimbal_lock else math.pi / 2 - 0.01
    x, y, z = draw(numbers(-3.1, 3.1)), draw(numbers(-most, most)), draw(numbers(-3.1, 3.1))
    return euler_to_rotation(torch.tensor([x, y, z], dtype=torch.float64))


@st.composite
def rigids(draw: st.DrawFn) -> Rigid:
    return Rigid(draw(rotations()), torch.tensor(draw(triples(-200, 200)), dtype=torch.float64))


@st.composite
def grids(draw: st.DrawFn, most: int = 12) -> Grid:
    """Oblique, flipped, anisotropic, and down to a single voxel along an axis."""
    size = st.integers(1, most)
    direction = (draw(rotations()) @ draw(st.sampled_from(SIGNED_AXES))).tolist()
    rows = tuple((row[0], row[1], row[2]) for row in direction)
    return Grid(
        shape=(draw(size), draw(size), draw(size)),
        spacing_mm=draw(triples(0.2, 5.0)),
        origin_mm=draw(triples(-300, 300)),
        direction=(rows[0], rows[1], rows[2]),
    )
