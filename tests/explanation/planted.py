"""Pairs whose only shared structure is one blob, and networks trained on them to find how far it moved."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossalign.explanation import StageCrop
from crossalign.geometry import Grid, Rigid
from crossalign.models import Stage, StageSettings
from crossalign.networks import build_network, crop_points
from crossalign.registration import Application

SIZE, SPACING_MM, BLOB_VOXEL, NEAR_VOXEL = 16, 3.0, 2.0, 4.0
LEVER_MM = 10.0
ORIGIN = torch.zeros(3, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Planted:
    """Crops (n, 1, z, y, x), and where the blob lies in each of the two (n, 3), voxels from the middle."""

    fixed: Tensor
    moving: Tensor
    position: Tensor
    moved: Tensor

    def near(self, index: int) -> Tensor:
        """Voxels close to the blob, where it is in either crop."""
        lattice = crop_points((SIZE,) * 3, 1.0)
        ends = (self.position[index], self.position[index] + self.moved[index])
        inside = [(lattice - end).norm(dim=-1) < NEAR_VOXEL for end in ends]
        return inside[0] | inside[1]


def plant(count: int, generator: torch.Generator) -> Planted:
    lattice = crop_points((SIZE,) * 3, 1.0).float()

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def scan(position: Tensor) -> Tensor:
        blob = torch.exp(-((lattice - position[:, None, None, None]) / BLOB_VOXEL).square().sum(-1))
        return (blob + 0.15 * uniform(count, SIZE, SIZE, SIZE))[:, None]

    position, moved = (uniform(count, 3) - 0.5) * SIZE / 2, (uniform(count, 3) - 0.5) * 6
    return Planted(scan(position), scan(position + moved), position, moved)


def untrained(name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(name, (SIZE,) * 3, SPACING_MM).eval()


def trained(name: str, steps: int, rate: float) -> nn.Module:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of several threads round otherwise, and training multiplies that
    try:
        return _trained(name, steps, rate)
    finally:
        torch.set_num_threads(threads)


def _trained(name: str, steps: int, rate: float) -> nn.Module:
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


def crop_of(name: str, network: nn.Module, fixed: Tensor, moving: Tensor, initial: Rigid | None = None) -> StageCrop:
    """One pair of crops (1, 1, z, y, x) about the origin, given to a network; `initial` None is the identity."""
    depth, height, width = fixed.shape[2:]
    stage = Stage(network, StageSettings(name, (depth, height, width), SPACING_MM), {})
    grid = Grid.centered((0.0, 0.0, 0.0), (depth, height, width), (SPACING_MM,) * 3)
    start = Rigid.identity() if initial is None else initial
    with torch.no_grad():
        parameters = network(fixed, moving)[0].double()
    answer = start @ Rigid.from_parameters(parameters, ORIGIN)
    return StageCrop(stage, grid, fixed, moving, parameters, Application(1, 1, 0, start, answer, 1.0))


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])
