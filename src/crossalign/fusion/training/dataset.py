"""Pairs to train fusion on, in memory, and the patches cut from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.fusion.training.settings import FusionAugmentation
from crossalign.geometry import euler_to_rotation, sample
from crossalign.input import excerpt
from crossalign.models.tensor_files import GIB, FileKind, read_header, read_tensors, refused, save_tensors
from crossalign.types import Volume

KIND = FileKind("not a bank of fusion pairs", InputError, 1024 * GIB)
NAME = re.compile(r"(mri|pet)/[0-9]{5,9}")
TISSUE = 0.15  # a voxel brighter than this in both shows tissue
SMALL_VOXEL, LARGE_VOXEL = (1.5, 4.0, 0.3), (2.5, 7.0, 0.8)  # lesions in MRI and PET: radius from, to; edge's width


@dataclass(frozen=True, eq=False)
class FusionDataset:
    """n pairs on one grid each, [0, 1], float16 (z, y, x); the sizes differ from pair to pair."""

    mri: tuple[Tensor, ...]
    pet: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        if not self.mri:
            raise InputError("there are no pairs to train on")
        if [v.shape for v in self.mri] != [v.shape for v in self.pet]:
            raise InputError("the MRI and the PET of each pair must lie on one grid")

    def __len__(self) -> int:
        return len(self.mri)

    def to(self, device: torch.device | str) -> FusionDataset:
        """Return the bank on another device."""
        return FusionDataset(tuple(v.to(device) for v in self.mri), tuple(v.to(device) for v in self.pet))

    def save(self, path: Path, overwrite: bool = False) -> None:
        """Write all volumes to one safetensors file. Raises OutputError."""
        save_tensors(self.tensors(), {}, path, overwrite)

    def tensors(self) -> Mapping[str, Tensor]:
        """Return what it holds by name."""
        return {f"{kind}/{n:05d}": v for kind in ("mri", "pet") for n, v in enumerate(getattr(self, kind))}

    @staticmethod
    def load(path: Path) -> FusionDataset:
        """Read what `save` wrote; raises InputError where it is missing, damaged, or of something else."""
        header = read_header(path, KIND)
        for name, shape in header.shapes.items():
            if NAME.fullmatch(name) is None or len(shape) != 3 or not header.types[name].endswith(("F16", "F32")):
                raise refused(path, KIND, f"it holds '{excerpt(name)}', {shape} of type {header.types[name]}")
        tensors = read_tensors(path, KIND, header)
        mri, pet = (tuple(tensors[k] for k in sorted(tensors) if k.startswith(f"{kind}/")) for kind in ("mri", "pet"))
        return FusionDataset(mri, pet)


@dataclass(frozen=True, eq=False)
class Planted:
    """The same patches (b, 1, z, y, x) with a lesion in one of the two; `where` is its soft mask, 0 to 1."""

    a: Volume
    b: Volume
    where: Volume


@dataclass(frozen=True, eq=False)
class FusionPatches:
    """Patches (b, 1, z, y, x) and the emphasis (b,) to fuse them with; `planted` where lesions were asked for."""

    a: Volume
    b: Volume
    emphasis: Tensor
    planted: Planted | None = None


def draw_patches(
    dataset: FusionDataset,
    index: list[int],
    patch: int,
    augmentation: FusionAugmentation | None,
    generator: torch.Generator,
) -> FusionPatches:
    """Cut one patch from each pair of `index`, varied where there is an augmentation.

    Half of them are to be balanced, a quarter asks for detail, a quarter for something between. Volumes shorter than
    the patch are extended by their border.
    """
    pairs = [_patch(dataset.mri[i], dataset.pet[i], patch, augmentation, generator) for i in index]
    draw = torch.rand(len(index), generator=generator)
    between = torch.rand(len(index), generator=generator)
    emphasis = torch.where(draw < 0.5, torch.zeros_like(draw), torch.where(draw < 0.75, torch.ones_like(draw), between))
    a, b = (torch.stack([pair[k] for pair in pairs])[:, None] for k in (0, 1))
    return FusionPatches(a, b, emphasis.to(a.device))


def plant_lesions(patches: FusionPatches, generator: torch.Generator) -> FusionPatches:
    """Add twins of the patches with a lesion each: brighter or darker, small in the MRI or larger and soft in the PET.

    It sits where both show something, if they do anywhere. What it changes is cut at 0 and 1, as scans are.
    """
    planted = [_planted(a[0], b[0], generator) for a, b in zip(patches.a, patches.b, strict=True)]
    a, b, where = (torch.stack([one[k] for one in planted])[:, None] for k in range(3))
    return FusionPatches(patches.a, patches.b, patches.emphasis, Planted(a, b, where))


def _planted(a: Tensor, b: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.rand(5, generator=generator)
    in_mri = float(draws[0]) < 1 / 3
    places = ((a > TISSUE) & (b > TISSUE)).nonzero()
    if len(places):
        place = places[int(float(draws[1]) * len(places))].tolist()
    else:
        place = [int(float(draws[1]) * size) for size in a.shape]
    axes = torch.meshgrid(*(torch.arange(n, device=a.device) for n in a.shape), indexing="ij")
    distance = torch.stack([(x - c) ** 2 for x, c in zip(axes, place, strict=True)]).sum(0).sqrt()
    least, most, edge = SMALL_VOXEL if in_mri else LARGE_VOXEL
    radius = least + (most - least) * float(draws[2])
    where = torch.sigmoid((radius - distance) / edge)
    change = (0.15 + 0.35 * float(draws[3])) * (1 if float(draws[4]) < 0.5 else -1) * where
    return (a + change).clamp(0, 1) if in_mri else a, b if in_mri else (b + change).clamp(0, 1), where


def _patch(
    mri: Tensor, pet: Tensor, size: int, augmentation: FusionAugmentation | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    first = [int(torch.randint(0, max(1, n - size + 1), (), generator=generator)) for n in mri.shape]
    pair = torch.stack((mri, pet))[None]
    if augmentation is not None and float(torch.rand((), generator=generator)) < augmentation.turned_share:
        pair = _turned(pair, first, size, augmentation.turn_rad, generator)
    else:
        pair = pair[:, :, *(slice(f, f + size) for f in first)].float()
        padding = [v for n in pair.shape[:1:-1] for v in (0, size - n)]
        pair = torch.nn.functional.pad(pair, padding, mode="replicate")
    if augmentation is not None:
        pair = _varied(pair, augmentation, generator)
    return pair[0, 0], pair[0, 1]


def _turned(pair: Tensor, first: list[int], size: int, turn_rad: float, generator: torch.Generator) -> Tensor:
    turn = euler_to_rotation((torch.rand(3, generator=generator) * 2 - 1) * turn_rad)
    axes = torch.meshgrid(*(torch.arange(size) - (size - 1) / 2,) * 3, indexing="ij")
    offsets = torch.stack(axes[::-1], dim=-1) @ turn.mT
    points = offsets + torch.tensor(first[::-1]) + (size - 1) / 2
    last = torch.tensor(pair.shape[:1:-1]) - 1
    return sample(pair.float(), torch.minimum(points.clamp(min=0), last)[None].to(pair.device))


def _varied(pair: Tensor, augmentation: FusionAugmentation, generator: torch.Generator) -> Tensor:
    """Flip both, dim each, and change contrast and noise of the MRI (channel 0)."""
    if augmentation.mirror:
        flips = [axis for axis in (2, 3, 4) if float(torch.rand((), generator=generator)) < 0.5]
        pair = pair.flip(flips) if flips else pair
    draws = torch.rand(4, generator=generator)
    gains = 1 - draws[:2] * augmentation.gain
    pair = pair * gains.to(pair)[None, :, None, None, None]
    mri = pair[:, :1].clamp(min=1e-6) ** float(torch.exp((draws[2] * 2 - 1) * augmentation.gamma))
    seed = int(torch.randint(2**31, (), generator=generator))
    noise = torch.randn(mri.shape, generator=torch.Generator(pair.device).manual_seed(seed), device=pair.device)
    empty = pair[:, :1] <= 1e-4  # a background that was cut off stays so
    mri = torch.where(empty, pair[:, :1], mri + noise * float(draws[3] ** 2 * augmentation.noise))
    return torch.cat((mri, pair[:, 1:]), dim=1).clamp(0, 1)
