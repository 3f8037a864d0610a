"""Pairs whose only shared structure is one blob, and networks trained on them to find how far it moved."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossalign.explanation.maps import View, crop_grid
from crossalign.geometry import Rigid
from crossalign.models import Stage, StageSettings
from crossalign.networks import build_network, crop_points

SIZE, SPACING_MM, BLOB_VOXEL, NEAR_VOXEL = 16, 3.0, 2.0, 4.0
LEVER_MM = 10.0
ORIGIN = torch.zeros(3, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Planted:
    """Crops (n, 1, z, y, x), and where the blob lies in each of the two (n, 3), voxels from the middle."""

    fixed: Tensor
    moving: Tensor
    place: Tensor
    moved: Tensor

    def near(self, index: int) -> Tensor:
        """Voxels close to the blob, where it is in either crop."""
        lattice = crop_points((SIZE,) * 3, 1.0)
        ends = (self.place[index], self.place[index] + self.moved[index])
        inside = [(lattice - end).norm(dim=-1) < NEAR_VOXEL for end in ends]
        return inside[0] | inside[1]


def plant(count: int, generator: torch.Generator) -> Planted:
    lattice = crop_points((SIZE,) * 3, 1.0).float()

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def scan(place: Tensor) -> Tensor:
        blob = torch.exp(-((lattice - place[:, None, None, None]) / BLOB_VOXEL).square().sum(-1))
        return (blob + 0.15 * uniform(count, SIZE, SIZE, SIZE))[:, None]

    place, moved = (uniform(count, 3) - 0.5) * SIZE / 2, (uniform(count, 3) - 0.5) * 6
    return Planted(scan(place), scan(place + moved), place, moved)


def untrained(name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(name, (SIZE,) * 3, SPACING_MM).eval()


def trained(name: str, steps: int, rate: float) -> nn.Module:
    model, generator = untrained(name, 0).train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        pairs = plant(8, generator)
        loss = (model(pairs.fixed, pairs.moving)[:, :3] / SPACING_MM - pairs.moved).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return model.eval()


def view_of(name: str, model: nn.Module, fixed: Tensor, moving: Tensor) -> View:
    """The view of one pair of crops (1, 1, z, y, x) about the origin, from the identity."""
    depth, height, width = fixed.shape[2:]
    stage = Stage(model, StageSettings(name, (depth, height, width), SPACING_MM), {})
    with torch.no_grad():
        parameters = model(fixed, moving)[0].double()
    return View(1, stage, crop_grid(stage, ORIGIN), Rigid.identity(), ORIGIN, fixed, moving, parameters)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])
