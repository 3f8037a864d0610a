"""Datasets in memory: every case of a split as tensors on the training device; and datasets made of other datasets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, quarter_turn, sample
from crossalign.models.tensor_files import (
    GIB,
    FileKind,
    TensorHeader,
    read_header,
    read_tensors,
    refused,
    save_tensors,
)
from crossalign.types import PointLattice, Volume

KIND = FileKind("not a bank of cases", InputError, 1024 * GIB)
# Axes after the cases' of each tensor; volumes may have any size, the rest has three numbers or three times three.
AXES = {"fixed": 4, "fixed_mask": 4, "moving": 4, "moving_mask": 4, "surface_mm": 2, "rotation": 2}
AXES |= {"fixed_origin_mm": 1, "moving_origin_mm": 1, "center_mm": 1, "translation_mm": 1}


@dataclass(frozen=True, eq=False)
class PairDataset:
    """n cases, each on canvases with axes along L, P and S and one isotropic spacing; only their origins differ.

    Volumes are (n, 1, z, y, x), float16, intensities in [0, 1]; masks are 0 to 1, and below 0 throughout where a case
    has none of the moving image. Points are float32, mm.
    """

    fixed: Tensor
    fixed_mask: Tensor
    moving: Tensor
    fixed_origin_mm: Tensor  # (n, 3)
    moving_origin_mm: Tensor  # (n, 3)
    center_mm: Tensor  # (n, 3) the gland's centroid in the fixed image
    rotation: Tensor  # (n, 3, 3) of the reference, fixed to moving
    translation_mm: Tensor  # (n, 3)
    surface_mm: Tensor  # (n, k, 3) on the gland in the fixed image
    spacing_mm: Tensor  # ()
    moving_mask: Tensor | None = None  # None: no case has one

    def __len__(self) -> int:
        return len(self.fixed)

    def reference(self, index: Tensor) -> Rigid:
        """Return the reference transforms, fixed to moving, of these cases."""
        return Rigid(self.rotation[index], self.translation_mm[index])

    def fixed_at(self, index: Tensor, points_mm: PointLattice, label: bool) -> Volume:
        """Sample the fixed images, or with `label` their masks, at points (b, z, y, x, 3)."""
        return self._at(self.fixed_mask if label else self.fixed, self.fixed_origin_mm, index, points_mm)

    def moving_at(self, index: Tensor, points_mm: PointLattice) -> Volume:
        """Sample the moving images at points (b, z, y, x, 3) of the moving space."""
        return self._at(self.moving, self.moving_origin_mm, index, points_mm)

    def moving_gland_at(self, index: Tensor, points_mm: PointLattice) -> Volume:
        """Sample the moving images' masks likewise; -1 where a case has none."""
        if self.moving_mask is None:
            return torch.full((len(index), 1, *points_mm.shape[1:4]), -1.0, device=points_mm.device)
        known = self.moving_mask[index].amin(dim=(1, 2, 3, 4), keepdim=True) >= 0
        return torch.where(known, self._at(self.moving_mask, self.moving_origin_mm, index, points_mm), -1.0)

    def _at(self, volumes: Tensor, origins: Tensor, index: Tensor, points_mm: PointLattice) -> Volume:
        points_voxel = (points_mm - origins[index][:, None, None, None]) / self.spacing_mm
        return sample(volumes[index].float(), points_voxel)

    def to(self, device: torch.device | str) -> PairDataset:
        """Return the bank on another device."""
        return PairDataset(**{name: value.to(device) for name, value in self.tensors().items()})

    def take(self, index: Tensor) -> PairDataset:
        """Return the bank of these cases alone."""
        picked = {name: value[index] for name, value in self.tensors().items() if name != "spacing_mm"}
        return PairDataset(**picked, spacing_mm=self.spacing_mm)

    def save(self, path: Path, overwrite: bool = False) -> None:
        """Write the tensors to a safetensors file, to train where no image reader is. Raises OutputError."""
        save_tensors(self.tensors(), {}, path, overwrite)

    def tensors(self) -> dict[str, Tensor]:
        """Return what it holds by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @staticmethod
    def load(path: Path) -> PairDataset:
        """Read what `save` wrote; raises InputError where it is missing, damaged, or of something else."""
        header = read_header(path, KIND)
        if fault := _fault(header):
            raise refused(path, KIND, fault)
        return PairDataset(**read_tensors(path, KIND, header))


def _fault(header: TensorHeader) -> str | None:
    """Say what keeps tensors of these shapes from being a bank."""
    known = {item.name for item in fields(PairDataset)}
    missing, odd = sorted(known - {"moving_mask"} - set(header.shapes)), sorted(set(header.shapes) - known)
    if missing or odd:
        return f"'{missing[0]}' is missing" if missing else f"it holds '{odd[0]}'"
    count = header.shapes["fixed"][:1]
    for name, shape in header.shapes.items():
        points = 1 if name in ("fixed", "fixed_mask", "moving", "moving_mask") else 3
        right = shape == () if name == "spacing_mm" else len(shape) == AXES[name] + 1 and shape[:1] == count
        if name != "spacing_mm" and right:
            right = min(shape) > 0 and (shape[1] == 1 if points == 1 else shape[-1] == points)
        if not right or not header.types[name].endswith(("F16", "F32", "F64")):
            return f"'{name}' has the shape {shape} of type {header.types[name]}"
    return None


AXIS_ORDER = "xyz"


def joined(datasets: list[PairDataset]) -> PairDataset:
    """Put the cases of several banks into one, in order; a bank that is named twice counts twice.

    Raises InputError where their canvases differ, or where only some of them hold moving masks.
    """
    if not datasets:
        raise InputError("there are no banks to join")
    first = datasets[0]
    for dataset in datasets[1:]:
        same = dataset.fixed.shape[1:] == first.fixed.shape[1:] and dataset.moving.shape[1:] == first.moving.shape[1:]
        if not same or not torch.equal(dataset.spacing_mm, first.spacing_mm):
            raise InputError("the banks to join were prepared for other crops: prepare them for one stage")
        if (dataset.moving_mask is None) != (first.moving_mask is None):
            raise InputError("some banks to join hold masks of the moving images and some do not")
    tensors: dict[str, Tensor] = {}
    for item in fields(PairDataset):
        values = [getattr(dataset, item.name) for dataset in datasets]
        if values[0] is not None:
            tensors[item.name] = values[0] if item.name == "spacing_mm" else torch.cat(values)
    return PairDataset(**tensors)


def mirrored(dataset: PairDataset, axis: str) -> PairDataset:
    """Return every case as its mirror image along the axis x, y or z of both spaces (LPS): x swaps left and right."""
    number = AXIS_ORDER.index(axis)
    sign = torch.ones(3, device=dataset.center_mm.device)
    sign[number] = -1.0

    def flipped(volumes: Tensor) -> Tensor:
        return volumes.flip(4 - number)

    def origin(origins: Tensor, volumes: Tensor) -> Tensor:
        last = (volumes.shape[4 - number] - 1) * dataset.spacing_mm
        return torch.where(sign < 0, -(origins + last), origins)

    return replace(
        _with_volumes(dataset, flipped),
        fixed_origin_mm=origin(dataset.fixed_origin_mm, dataset.fixed),
        moving_origin_mm=origin(dataset.moving_origin_mm, dataset.moving),
        center_mm=dataset.center_mm * sign,
        rotation=sign[:, None] * dataset.rotation * sign,
        translation_mm=dataset.translation_mm * sign,
        surface_mm=dataset.surface_mm * sign,
    )


def turned(dataset: PairDataset, quarters: int) -> PairDataset:
    """Return every case turned as a whole, both spaces alike, by so many quarter turns about z (from x to y).

    For scans whose headers name the axes wrongly: 3 quarters bring what lies at -x (where the headers say the patient's
    right is) to +y, the patient's back.
    """
    for _ in range(quarters % 4):
        dataset = _quarter_turned(dataset)
    return dataset


def _quarter_turned(dataset: PairDataset) -> PairDataset:
    turn = quarter_turn(1).to(dataset.center_mm)

    def volume(volumes: Tensor) -> Tensor:
        return volumes.transpose(-1, -2).flip(-1)

    def origin(origins: Tensor, volumes: Tensor) -> Tensor:
        last = (volumes.shape[-2] - 1) * dataset.spacing_mm
        x, y, z = origins.unbind(-1)
        return torch.stack((-(y + last), x, z), -1)

    return replace(
        _with_volumes(dataset, volume),
        fixed_origin_mm=origin(dataset.fixed_origin_mm, dataset.fixed),
        moving_origin_mm=origin(dataset.moving_origin_mm, dataset.moving),
        center_mm=dataset.center_mm @ turn.mT,
        rotation=turn @ dataset.rotation @ turn.mT,
        translation_mm=dataset.translation_mm @ turn.mT,
        surface_mm=dataset.surface_mm @ turn.mT,
    )


def _with_volumes(dataset: PairDataset, change: Callable[[Tensor], Tensor]) -> PairDataset:
    return replace(
        dataset,
        fixed=change(dataset.fixed),
        fixed_mask=change(dataset.fixed_mask),
        moving=change(dataset.moving),
        moving_mask=None if dataset.moving_mask is None else change(dataset.moving_mask),
    )
