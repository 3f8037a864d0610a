"""A blob in two scans, and networks that find it by its centre of mass: their errors are known by construction."""

import torch
from torch import Tensor, nn

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap
from crossalign.models import Model, RunSettings, Stage, StageSettings
from crossalign.models.arrangement import Arrangement
from crossalign.networks import crop_points
from crossalign.registration import NetworkRegistration, Problem

CENTER_MM = torch.tensor([20.0, -35.0, 60.0], dtype=torch.float64)
TRUTH = Rigid.from_parameters(torch.tensor([30.0, 12, -25, 8, -6, 11], dtype=torch.float64), CENTER_MM)
CROP = StageSettings("feature-reg", (16, 16, 16), 5.0, 3.0)


def shift(x: float, y: float, z: float) -> Rigid:
    return Rigid(torch.eye(3, dtype=torch.float64), torch.tensor([x, y, z], dtype=torch.float64))


def blob_problem(initial: Rigid, moving_frame: Rigid | None = None, mask: bool = True) -> Problem:
    """A blob at CENTER_MM and at TRUTH of it; `moving_frame` moves the moving scan's world, and `initial` with it."""
    frame = Rigid.identity() if moving_frame is None else moving_frame
    fixed_grid = Grid.centered(_triple(CENTER_MM), (40, 40, 40), (3.0, 3.0, 3.0))
    middle = TRUTH.apply(CENTER_MM[None])[0]
    plain = Grid.centered(_triple(middle), (52, 52, 52), (3.0, 3.0, 3.0))
    moving = _blob(plain, middle)
    rows = frame.rotation.tolist()
    origin = frame.apply(torch.tensor([plain.origin_mm], dtype=torch.float64))[0]
    direction = (tuple(rows[0]), tuple(rows[1]), tuple(rows[2]))
    moving_grid = Grid(plain.shape, plain.spacing_mm, _triple(origin), direction)
    inside = (fixed_grid.points_mm() - CENTER_MM).norm(dim=-1) < 15
    structure = LabelMap(inside.long(), fixed_grid) if mask else None
    return Problem(
        Image(_blob(fixed_grid, CENTER_MM), fixed_grid), Image(moving, moving_grid), frame @ initial, structure
    )


def _blob(grid: Grid, center: Tensor) -> Tensor:
    return torch.exp(-((grid.points_mm() - center) / 9).square().sum(-1)).float()


def _triple(point: Tensor) -> tuple[float, float, float]:
    x, y, z = point.tolist()
    return (x, y, z)


class Finder(nn.Module):
    """Answers with a fraction of the way to the blob, if it is nearer than `reach_mm`; else it does not move."""

    def __init__(self, fraction: float = 1.0, reach_mm: float = 100.0) -> None:
        super().__init__()
        self.fraction, self.reach_mm = fraction, reach_mm
        self.batches: list[int] = []

    def way_mm(self, moving: Tensor) -> Tensor:
        """From the crop's centre to the centre of mass, (b, 3)."""
        points = crop_points(CROP.crop_shape, CROP.crop_spacing_mm).float().flatten(0, 2)
        mass = (moving.flatten(1) - 0.05).clamp(min=0)
        return mass @ points / mass.sum(1, keepdim=True).clamp(min=1e-6)

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        self.batches.append(len(moving))
        assert fixed.shape == moving.shape
        way = self.way_mm(moving)
        near = way.norm(dim=1, keepdim=True) < self.reach_mm
        return torch.cat((torch.where(near, self.fraction * way, 0.0), torch.zeros_like(way)), dim=1)


class HonestFinder(Finder):
    """Also expects the error that is left, and a large one where the blob is not within its reach."""

    def forward_with_error(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        way = self.way_mm(moving).norm(dim=1)
        found = (moving.flatten(1).amax(1) > 0.5) & (way < self.reach_mm)
        return self(fixed, moving), torch.where(found, (1 - self.fraction) * way + 0.25, 50.0)


def stage(network: nn.Module) -> Stage:
    return Stage(network, CROP, {})


def method(arrangement: Arrangement, **settings: object) -> NetworkRegistration:
    return NetworkRegistration(Model(arrangement, RunSettings(**settings)), "toy")  # type: ignore[arg-type]


class Framed(HonestFinder):
    """Expects the smallest error where the way to the blob leads along +y of the crop."""

    def forward_with_error(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        way = self.way_mm(moving)
        return self(fixed, moving), 50.0 - way[:, 1]
