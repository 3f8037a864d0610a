"""The frame that a method works in: the fixed image's own axes, so that no answer depends on the world's.

Where the origin lies and how the world is turned is an accident of the scanner and its table. Methods with steps along
axes or about a centre would answer differently in another world. They see the problem in a frame that moves with it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import Grid, Rigid
from crossalign.registration.problem import Problem
from crossalign.types import Triple

ALIGNED = 1e-6  # a rotation this near to none is rounding
DECIMALS = 9  # of mm and of direction cosines: the same problem in two worlds becomes the same numbers
# Settings in mm hold for structures between a prostate and a head; a length follows the extent outside of that.
LEAST_EXTENT_MM, MOST_EXTENT_MM = 45.0, 200.0


@dataclass(frozen=True, eq=False)
class WorkingFrame:
    """The rigid changes of coordinates from a problem's two worlds to those that a method works in.

    A fixed point p became `scale` * fixed_to_frame(p), a moving point q `scale` * moving_to_frame(q).
    """

    fixed_to_frame: Rigid
    moving_to_frame: Rigid
    scale: float = 1.0

    def to_world(self, found: Rigid) -> Rigid:
        """Convert a transform found in the frame to one from fixed to moving points, LPS mm."""
        unscaled = Rigid(found.rotation, found.translation_mm / self.scale)
        return self.moving_to_frame.inverse() @ unscaled @ self.fixed_to_frame

    def vectors_to_world(self) -> Tensor:
        """Return the matrix (3, 3) that converts vectors of the fixed image's frame to vectors of its world, mm."""
        return self.fixed_to_frame.rotation.mT / self.scale


def along_fixed_axes(problem: Problem) -> tuple[Problem, WorkingFrame]:
    """Turn both worlds alike so that the fixed grid's axes run along L, P and S, each along the one it is nearest to.

    A grid that runs along them already, in whatever order and direction, is left as it is.
    """
    if not is_oblique(problem.fixed.grid):
        return problem, WorkingFrame(Rigid.identity(), Rigid.identity())
    frame = Rigid(rotation_to_axes(problem.fixed.grid), torch.zeros(3, dtype=torch.float64))
    return _in_frame(problem, WorkingFrame(frame, frame))


def normalised(problem: Problem, most_mm: float = MOST_EXTENT_MM) -> tuple[Problem, WorkingFrame]:
    """Move both worlds to a frame along the fixed axes whose origin is the structure's centre.

    The initial transform becomes the identity, and a structure smaller than 45 mm or larger than `most_mm` is scaled
    to that size, so that a method's settings in mm hold for a mouse and for a phantom of a metre.
    """
    rotation = rotation_to_axes(problem.fixed.grid)
    frame = Rigid(rotation, -(rotation @ problem.center_mm))
    scale = min(max(problem.extent_mm, LEAST_EXTENT_MM), most_mm) / problem.extent_mm
    return _in_frame(problem, WorkingFrame(frame, frame @ problem.initial.inverse(), scale))


def is_oblique(grid: Grid) -> bool:
    """Say whether a grid's axes run aslant to L, P and S; storage in another order or direction is not oblique."""
    return float((rotation_to_axes(grid) - torch.eye(3, dtype=torch.float64)).abs().max()) >= ALIGNED


def rotation_to_axes(grid: Grid) -> Tensor:
    """Return the rotation (3, 3) that brings a grid's axes to L, P and S, each to the nearest, whichever its sign."""
    direction = torch.tensor(grid.direction, dtype=torch.float64)
    orders = list(itertools.permutations(range(3)))
    sizes = direction.abs()
    best = max(orders, key=lambda order: float(sum(sizes[order[axis], axis] for axis in range(3))))
    nearest = torch.zeros(3, 3, dtype=torch.float64)
    for axis, row in enumerate(best):
        nearest[row, axis] = 1.0 if float(direction[row, axis]) >= 0 else -1.0
    return nearest @ direction.T


def _in_frame(problem: Problem, frame: WorkingFrame) -> tuple[Problem, WorkingFrame]:
    fixed = _moved_grid(problem.fixed.grid, frame.fixed_to_frame, frame.scale)
    moving = _moved_grid(problem.moving.grid, frame.moving_to_frame, frame.scale)
    initial = frame.moving_to_frame @ problem.initial @ frame.fixed_to_frame.inverse()
    initial = Rigid(_rounded(initial.rotation), _rounded(initial.translation_mm * frame.scale))
    return problem.on_grids(fixed, moving, initial), frame


def _moved_grid(grid: Grid, to_frame: Rigid, scale: float) -> Grid:
    direction = _rounded(to_frame.rotation @ torch.tensor(grid.direction, dtype=torch.float64))
    origin = _rounded(to_frame.apply(torch.tensor([grid.origin_mm], dtype=torch.float64))[0] * scale)
    spacing = _rounded(torch.tensor(grid.spacing_mm, dtype=torch.float64) * scale)
    a, b, c = (_triple(row) for row in direction)
    return Grid(grid.shape, _triple(spacing), _triple(origin), (a, b, c))


def _rounded(values: Tensor) -> Tensor:
    return torch.round(values, decimals=DECIMALS) + 0.0  # no -0.0


def _triple(values: Tensor) -> Triple:
    x, y, z = values.tolist()
    return (x, y, z)
