"""Small datasets whose truth is exact: blobs as a function of space, as they are and as another modality."""

import torch
from torch import Tensor

from crossalign.geometry import Rigid
from crossalign.models import StageSettings
from crossalign.networks import crop_points
from crossalign.training import PairDataset

SPACING_MM = 3.0
SIZE = 26


class Anatomy:
    """One gland with parts, as a function of offsets from its centre (mm)."""

    def __init__(self, generator: torch.Generator) -> None:
        def uniform(*shape: int, low: float, high: float) -> Tensor:
            return torch.rand(*shape, generator=generator) * (high - low) + low

        self.half_axes_mm = uniform(3, low=12, high=18)
        parts = torch.tensor([[9.0, 0, 0], [0, -8.0, 4.0], [-5.0, 5.0, -7.0]])
        self.parts_mm = parts + uniform(3, 3, low=-2, high=2)
        self.sizes_mm = uniform(3, low=4, high=6)

    def __call__(self, offsets_mm: Tensor) -> Tensor:
        value = 0.5 * torch.exp(-((offsets_mm / self.half_axes_mm).square().sum(-1) ** 2))
        for center, size in zip(self.parts_mm, self.sizes_mm, strict=True):
            value = value + 0.5 * torch.exp(-((offsets_mm - center) / size).square().sum(-1))
        return value

    def surface(self, count: int = 64) -> Tensor:
        """Points on the ellipsoid (Fibonacci's spiral)."""
        n = torch.arange(count) + 0.5
        z = 1 - 2 * n / count
        angle = n * torch.pi * (3 - 5**0.5)
        ring = (1 - z**2).sqrt()
        return torch.stack((ring * angle.cos(), ring * angle.sin(), z), dim=-1) * self.half_axes_mm


def make_dataset(count: int, seed: int = 0, inverted: bool = False) -> PairDataset:
    """Draw cases; `inverted` shows the moving image as 1 - content, as another modality might."""
    generator = torch.Generator().manual_seed(seed)
    lattice = crop_points((SIZE, SIZE, SIZE), SPACING_MM).float()
    corner = lattice[0, 0, 0]
    rows: list[dict[str, Tensor]] = []
    for _ in range(count):
        anatomy = Anatomy(generator)
        center = torch.rand(3, generator=generator) * 200 - 100
        drawn = torch.rand(6, generator=generator) * 2 - 1
        reference = Rigid.from_parameters(drawn * torch.tensor([40.0, 40, 40, 20, 20, 20]), center)
        middle = reference.apply(center[None])[0]
        inverse = reference.inverse()
        fixed = anatomy(lattice)
        there = inverse.apply((lattice + middle).flatten(0, 2)).reshape(lattice.shape) - center
        content = anatomy(there)
        rows.append(
            {
                "fixed": fixed[None],
                "fixed_mask": ((lattice / anatomy.half_axes_mm).square().sum(-1) < 1).float()[None],
                "moving": (1 - content if inverted else content)[None],
                "moving_mask": ((there / anatomy.half_axes_mm).square().sum(-1) < 1).float()[None],
                "fixed_origin_mm": center + corner,
                "moving_origin_mm": middle + corner,
                "center_mm": center,
                "rotation": reference.rotation,
                "translation_mm": reference.translation_mm,
                "surface_mm": anatomy.surface() + center,
            }
        )
    stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    halves = {name: stacked[name].half() for name in ("fixed", "fixed_mask", "moving", "moving_mask")}
    return PairDataset(**{**stacked, **halves}, spacing_mm=torch.tensor(SPACING_MM))


TINY = StageSettings("attention-reg", (8, 8, 8), 5.0, SPACING_MM)
