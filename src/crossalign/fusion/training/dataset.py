"""Pairs to train fusion on, in memory, and the patches cut from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.fusion.training.settings import FusionAugmentation
from crossalign.geometry import euler_to_rotation, sample
from crossalign.input import excerpt
from crossalign.models.tensor_files import GIB, FileKind, read_tensor_header, read_tensors, refused, save_tensors
from crossalign.types import Shape, Volume

KIND = FileKind("not a dataset of fusion pairs", InputError, 1024 * GIB)
NAME = re.compile(r"(mri|pet|outline)/[0-9]{5,9}")
HALF = 0.5  # a voxel of a rotated patch that is inside the outline by more belongs to it
TISSUE = 0.15  # a voxel brighter than this in both shows tissue
# Lesions in MRI and PET, voxels: smallest and largest radius, width of the edge.
MRI_LESION, PET_LESION = (1.5, 4.0, 0.3), (2.5, 7.0, 0.8)


@dataclass(frozen=True, eq=False)
class FusionDataset:
    """n pairs on one grid each, [0, 1], float16 (z, y, x); the sizes differ from pair to pair.

    `outlines` is empty, or holds for each pair where its lesion is (bool, on that grid), or None.
    """

    mri: tuple[Tensor, ...]
    pet: tuple[Tensor, ...]
    outlines: tuple[Tensor | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.mri:
            raise InputError("there are no pairs to train on")
        if [v.shape for v in self.mri] != [v.shape for v in self.pet]:
            raise InputError("the MRI and the PET of each pair must lie on one grid")
        if len(self.outlines) not in (0, len(self.mri)) or any(
            outline is not None and outline.shape != v.shape
            for v, outline in zip(self.mri, self.outlines, strict=False)
        ):
            raise InputError("there must be as many outlines as pairs, each on its MRI's grid or None")

    def __len__(self) -> int:
        return len(self.mri)

    def to(self, device: torch.device | str) -> FusionDataset:
        """Return the dataset on another device."""
        outlines = tuple(None if o is None else o.to(device) for o in self.outlines)
        return FusionDataset(tuple(v.to(device) for v in self.mri), tuple(v.to(device) for v in self.pet), outlines)

    def has_outlines(self) -> bool:
        """Say whether any pair has an outline."""
        return any(outline is not None for outline in self.outlines)

    def without_outlines(self) -> FusionDataset:
        """Return the pairs alone."""
        return FusionDataset(self.mri, self.pet)

    def save(self, path: Path, overwrite: bool = False) -> None:
        """Write all volumes to one safetensors file. Raises OutputError."""
        save_tensors(self.tensors(), {}, path, overwrite)

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the volumes by name."""
        kinds = {"mri": self.mri, "pet": self.pet, "outline": self.outlines}
        return {f"{kind}/{n:05d}": v for kind, volumes in kinds.items() for n, v in enumerate(volumes) if v is not None}

    @staticmethod
    def load(path: Path) -> FusionDataset:
        """Read what `save` wrote; raises InputError where it is missing, damaged, or of something else."""
        header = read_tensor_header(path, KIND)
        for name, shape in header.shapes.items():
            types = ("BOOL",) if name.startswith("outline/") else ("F16", "F32")
            if NAME.fullmatch(name) is None or len(shape) != 3 or not header.types[name].endswith(types):
                raise refused(path, KIND, f"it holds '{excerpt(name)}', {shape} of type {header.types[name]}")
        tensors = read_tensors(path, KIND, header)
        names = {kind: sorted(k for k in tensors if k.startswith(f"{kind}/")) for kind in ("mri", "pet", "outline")}
        of_pairs = [name.replace("mri", "outline") for name in names["mri"]]
        if odd := set(names["outline"]).difference(of_pairs):
            raise refused(path, KIND, f"it holds '{excerpt(min(odd))}' and no MRI of that number")
        mri, pet = (tuple(tensors[name] for name in names[kind]) for kind in ("mri", "pet"))
        return FusionDataset(mri, pet, tuple(map(tensors.get, of_pairs)) if names["outline"] else ())


@dataclass(frozen=True, eq=False)
class LesionPatches:
    """The same patches (b, 1, z, y, x) with a lesion in one of the two, and its soft mask, 0 to 1."""

    a: Volume
    b: Volume
    mask: Volume


@dataclass(frozen=True, eq=False)
class FusionPatches:
    """Patches (b, 1, z, y, x), and for each how much detail is wanted (b,): 0 balanced, 1 detail.

    `outline` is 1 inside the outline of a lesion and 0 elsewhere; None where no pair of the dataset has one.
    """

    a: Volume
    b: Volume
    detail: Tensor
    lesions: LesionPatches | None = None
    outline: Volume | None = None

    def inputs(self) -> tuple[Volume, Volume]:
        """Return both volumes, those with lesions after those without."""
        if self.lesions is None:
            return self.a, self.b
        return torch.cat((self.a, self.lesions.a)), torch.cat((self.b, self.lesions.b))


def draw_patches(
    dataset: FusionDataset,
    index: list[int],
    patch: Shape,
    augmentation: FusionAugmentation | None,
    generator: torch.Generator,
) -> FusionPatches:
    """Cut one patch from each pair of `index`, varied where there is an augmentation.

    `detail` is 0 for half of them, 1 for a quarter and between for a quarter. Volumes shorter than the patch are
    extended by their border. What is drawn does not depend on whether there are outlines.
    """
    pairs = [_patch(_channels(dataset, i), patch, augmentation, generator) for i in index]
    draw = torch.rand(len(index), generator=generator)
    between = torch.rand(len(index), generator=generator)
    detail = torch.where(draw < 0.5, torch.zeros_like(draw), torch.where(draw < 0.75, torch.ones_like(draw), between))
    a, b, *outlines = torch.stack(pairs, dim=1)[:, :, None]
    outline = (outlines[0] > HALF).float() if outlines else None
    return FusionPatches(a, b, detail.to(a.device), outline=outline)


def insert_lesions(patches: FusionPatches, generator: torch.Generator) -> FusionPatches:
    """Add copies of the patches with a lesion: brighter or darker, small in the MRI or larger and soft in the PET.

    Its centre is a voxel where both show something, if there is one. Values are clipped to [0, 1], as in scans.
    """
    each = [_with_lesion(a[0], b[0], generator) for a, b in zip(patches.a, patches.b, strict=True)]
    a, b, mask = (torch.stack([one[k] for one in each])[:, None] for k in range(3))
    return replace(patches, lesions=LesionPatches(a, b, mask))


def _with_lesion(a: Tensor, b: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.rand(5, generator=generator).tolist()
    in_mri = draws[0] < 1 / 3
    tissue = ((a > TISSUE) & (b > TISSUE)).nonzero()
    anywhere = [int(draws[1] * size) for size in a.shape]
    center = tissue[int(draws[1] * len(tissue))].tolist() if len(tissue) else anywhere
    axes = torch.meshgrid(*(torch.arange(n, device=a.device) for n in a.shape), indexing="ij")
    distance = torch.stack([(x - c) ** 2 for x, c in zip(axes, center, strict=True)]).sum(0).sqrt()
    smallest, largest, edge = MRI_LESION if in_mri else PET_LESION
    radius = smallest + (largest - smallest) * draws[2]
    mask = torch.sigmoid((radius - distance) / edge)
    change = (0.15 + 0.35 * draws[3]) * (1 if draws[4] < 0.5 else -1) * mask
    return ((a + change).clamp(0, 1), b, mask) if in_mri else (a, (b + change).clamp(0, 1), mask)


def _channels(dataset: FusionDataset, number: int) -> Tensor:
    """Return a pair (2, z, y, x), or (3, z, y, x) with its outline, 0 or 1, where the dataset has any."""
    pair = dataset.mri[number], dataset.pet[number]
    if not dataset.has_outlines():
        return torch.stack(pair)
    outline = dataset.outlines[number]
    return torch.stack((*pair, torch.zeros_like(pair[0]) if outline is None else outline.to(pair[0])))


def _patch(pair: Tensor, size: Shape, augmentation: FusionAugmentation | None, generator: torch.Generator) -> Tensor:
    """Cut one patch (c, z, y, x) from the channels of `_channels`."""
    spaces = zip(pair.shape[1:], size, strict=True)
    first = [int(torch.randint(0, max(1, n - part + 1), (), generator=generator)) for n, part in spaces]
    pair = pair[None]
    rotated = augmentation is not None and _chance(augmentation.rotated_fraction, generator)
    if augmentation is not None and rotated:
        pair = _rotated(pair, first, size, augmentation.rotation_rad, generator)
    else:
        pair = pair[:, :, *(slice(f, f + part) for f, part in zip(first, size, strict=True))].float()
        short = zip(pair.shape[:1:-1], size[::-1], strict=True)
        pair = torch.nn.functional.pad(pair, [v for n, part in short for v in (0, part - n)], mode="replicate")
    if augmentation is not None:
        pair = _varied(pair, augmentation, generator)
    return pair[0]


def _rotated(pair: Tensor, first: list[int], size: Shape, rotation_rad: float, generator: torch.Generator) -> Tensor:
    rotation = euler_to_rotation((torch.rand(3, generator=generator) * 2 - 1) * rotation_rad)
    axes = torch.meshgrid(*(torch.arange(part) - (part - 1) / 2 for part in size), indexing="ij")
    offsets = torch.stack(axes[::-1], dim=-1) @ rotation.mT
    points = offsets + torch.tensor(first[::-1]) + (torch.tensor(size[::-1]) - 1) / 2
    last = torch.tensor(pair.shape[:1:-1]) - 1
    return sample(pair.float(), torch.minimum(points.clamp(min=0), last)[None].to(pair.device))


def _varied(pair: Tensor, augmentation: FusionAugmentation, generator: torch.Generator) -> Tensor:
    """Flip all, darken each of the two scans, and change contrast and noise of the MRI (channel 0)."""
    if augmentation.mirror:
        flips = [axis for axis in (2, 3, 4) if _chance(0.5, generator)]
        pair = pair.flip(flips) if flips else pair
    pair, outline = pair[:, :2], pair[:, 2:]
    draws = torch.rand(4, generator=generator)
    gains = 1 - draws[:2] * augmentation.gain
    pair = pair * gains.to(pair)[None, :, None, None, None]
    mri = pair[:, :1].clamp(min=1e-6) ** float(torch.exp((draws[2] * 2 - 1) * augmentation.gamma))
    seed = int(torch.randint(2**31, (), generator=generator))
    noise = torch.randn(mri.shape, generator=torch.Generator(pair.device).manual_seed(seed), device=pair.device)
    empty = pair[:, :1] <= 1e-4  # a background that was set to 0 stays 0
    mri = torch.where(empty, pair[:, :1], mri + noise * float(draws[3] ** 2 * augmentation.noise))
    return torch.cat((mri, pair[:, 1:], outline), dim=1).clamp(0, 1)


def _chance(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability
