"""Datasets in memory: every case of a split as tensors on the training device; and datasets made of other datasets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, quarter_turn, sample
from crossalign.models.tensor_files import (
    GIB,
    FileKind,
    TensorHeader,
    read_tensor_header,
    read_tensors,
    refused,
    save_tensors,
)
from crossalign.types import PointGrid, Volume

KIND = FileKind("not a dataset of image pairs", InputError, 1024 * GIB)
VOLUMES = ("fixed", "fixed_mask", "moving", "moving_mask")  # of any size; the rest has three numbers or 3 x 3
OPTIONAL = {"moving_mask", "fixed_box_mm", "moving_box_mm"}
# Axes after the cases' of each tensor.
TENSOR_AXES = dict.fromkeys(VOLUMES, 4) | {"surface_mm": 2, "rotation": 2, "fixed_box_mm": 2, "moving_box_mm": 2}
TENSOR_AXES |= {"fixed_origin_mm": 1, "moving_origin_mm": 1, "center_mm": 1, "translation_mm": 1}


@dataclass(frozen=True, eq=False)
class PairDataset:
    """n cases, each as preprocessed images: axes along L, P and S, one isotropic spacing for all, an origin for each.

    Volumes are (n, 1, z, y, x), float16, intensities in [0, 1]; masks are 0 to 1, and below 0 throughout where a case
    has none of the moving image. Points are float32, mm. A volume may reach beyond its preprocessed image, and is 0
    there: boxes hold the centres of the image's first and last voxel.
    """

    fixed: Tensor
    fixed_mask: Tensor
    moving: Tensor
    fixed_origin_mm: Tensor  # (n, 3)
    moving_origin_mm: Tensor  # (n, 3)
    center_mm: Tensor  # (n, 3) centroid of the structure in the fixed image
    rotation: Tensor  # (n, 3, 3) of the reference, fixed to moving
    translation_mm: Tensor  # (n, 3)
    surface_mm: Tensor  # (n, k, 3) on the structure in the fixed image
    spacing_mm: Tensor  # ()
    moving_mask: Tensor | None = None  # None: no case has one
    fixed_box_mm: Tensor | None = None  # (n, 2, 3); None: the volumes end where the images end
    moving_box_mm: Tensor | None = None

    def __len__(self) -> int:
        return len(self.fixed)

    def reference(self, index: Tensor) -> Rigid:
        """Return the reference transforms, fixed to moving, of these cases."""
        return Rigid(self.rotation[index], self.translation_mm[index])

    def fixed_at(self, index: Tensor, points_mm: PointGrid, label: bool) -> Volume:
        """Sample the fixed images, or with `label` their masks, at points (b, z, y, x, 3)."""
        volumes = self.fixed_mask if label else self.fixed
        return self._at(volumes, self.fixed_origin_mm, self.fixed_box_mm, index, points_mm)

    def moving_at(self, index: Tensor, points_mm: PointGrid) -> Volume:
        """Sample the moving images at points (b, z, y, x, 3) of the moving space."""
        return self._at(self.moving, self.moving_origin_mm, self.moving_box_mm, index, points_mm)

    @cached_property
    def fixed_extent_mm(self) -> Tensor:
        """Boxes (n, 2, 3), mm, outside of which the fixed images show nothing (are 0)."""
        return _extent_mm(self.fixed, self.fixed_origin_mm, self.spacing_mm)

    @cached_property
    def moving_extent_mm(self) -> Tensor:
        """The same boxes of the moving images."""
        return _extent_mm(self.moving, self.moving_origin_mm, self.spacing_mm)

    def moving_mask_at(self, index: Tensor, points_mm: PointGrid) -> Volume:
        """Sample the moving images' masks likewise; -1 where a case has none."""
        if self.moving_mask is None:
            return torch.full((len(index), 1, *points_mm.shape[1:4]), -1.0, device=points_mm.device)
        known = self.moving_mask[index].amin(dim=(1, 2, 3, 4), keepdim=True) >= 0
        values = self._at(self.moving_mask, self.moving_origin_mm, self.moving_box_mm, index, points_mm)
        return torch.where(known, values, -1.0)

    def _at(
        self, volumes: Tensor, origin_mm: Tensor, box_mm: Tensor | None, index: Tensor, points_mm: PointGrid
    ) -> Volume:
        """Sample as `geometry.sample` samples the preprocessed images that the volumes hold."""
        origin_mm = origin_mm[index][:, None, None, None]
        points_voxel = (points_mm - origin_mm) / self.spacing_mm
        if box_mm is None:
            return sample(volumes[index].float(), points_voxel)
        first, last = ((box_mm[index][:, end, None, None, None] - origin_mm) / self.spacing_mm for end in (0, 1))
        inside = ((points_voxel >= first - 0.5) & (points_voxel < last + 0.5)).all(dim=-1)
        values = sample(volumes[index].float(), torch.minimum(torch.maximum(points_voxel, first), last))
        return torch.where(inside[:, None], values, torch.zeros_like(values))

    def to(self, device: torch.device | str) -> PairDataset:
        """Return the dataset on another device."""
        return PairDataset(**{name: value.to(device) for name, value in self.tensors().items()})

    def take(self, index: Tensor) -> PairDataset:
        """Return the dataset of these cases alone."""
        selected = {name: value[index] for name, value in self.tensors().items() if name != "spacing_mm"}
        return PairDataset(**selected, spacing_mm=self.spacing_mm)

    def tensors(self) -> dict[str, Tensor]:
        """Return what it holds by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def save(self, path: Path, overwrite: bool = False) -> None:
        """Write the tensors to a safetensors file, to train where no image reader is. Raises OutputError."""
        save_tensors(self.tensors(), {}, path, overwrite)

    @staticmethod
    def load(path: Path) -> PairDataset:
        """Read what `save` wrote; raises InputError where it is missing, damaged, or of something else."""
        header = read_tensor_header(path, KIND)
        if fault := _fault(header):
            raise refused(path, KIND, fault)
        return PairDataset(**read_tensors(path, KIND, header))


def _fault(header: TensorHeader) -> str | None:
    """Say what keeps tensors of these shapes from being a dataset."""
    known = {item.name for item in fields(PairDataset)}
    missing, odd = sorted(known - OPTIONAL - set(header.shapes)), sorted(set(header.shapes) - known)
    if missing or odd:
        return f"'{missing[0]}' is missing" if missing else f"it holds '{odd[0]}'"
    count = header.shapes["fixed"][:1]
    for name, shape in header.shapes.items():
        right = shape == () if name == "spacing_mm" else len(shape) == TENSOR_AXES[name] + 1 and shape[:1] == count
        if name != "spacing_mm" and right:
            right = min(shape) > 0 and (shape[1] == 1 if name in VOLUMES else shape[-1] == 3)
        if not right or not header.types[name].endswith(("F16", "F32", "F64")):
            return f"'{name}' has the shape {shape} of type {header.types[name]}"
    return None


def joined(datasets: list[PairDataset]) -> PairDataset:
    """Put the cases of several datasets into one, in order; a dataset that is named twice counts twice.

    Raises InputError where their volumes differ in size or spacing, or where only some of them hold moving masks.
    """
    if not datasets:
        raise InputError("there are no datasets to join")
    first = datasets[0]
    for dataset in datasets[1:]:
        same = dataset.fixed.shape[1:] == first.fixed.shape[1:] and dataset.moving.shape[1:] == first.moving.shape[1:]
        if not same or not torch.equal(dataset.spacing_mm, first.spacing_mm):
            raise InputError("the datasets to join were prepared for other crops: prepare them for one stage")
        if (dataset.moving_mask is None) != (first.moving_mask is None):
            raise InputError("some datasets to join hold masks of the moving images and some do not")
    if any(dataset.fixed_box_mm is not None for dataset in datasets):
        datasets = [_with_boxes(dataset) for dataset in datasets]
    parts = [dataset.tensors() for dataset in datasets]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name != "spacing_mm"}
    return PairDataset(**tensors, spacing_mm=first.spacing_mm)


def _with_boxes(dataset: PairDataset) -> PairDataset:
    if dataset.fixed_box_mm is not None:
        return dataset
    return replace(
        dataset,
        fixed_box_mm=_corners_mm(dataset.fixed_origin_mm, dataset.fixed, dataset.spacing_mm),
        moving_box_mm=_corners_mm(dataset.moving_origin_mm, dataset.moving, dataset.spacing_mm),
    )


def _corners_mm(origin_mm: Tensor, volumes: Tensor, spacing_mm: Tensor) -> Tensor:
    """Return the centres of the first and the last voxel of volumes (n, 1, z, y, x), (n, 2, 3)."""
    last = (torch.tensor(volumes.shape[:1:-1], device=origin_mm.device) - 1) * spacing_mm
    return torch.stack((origin_mm, origin_mm + last), 1)


def _extent_mm(volumes: Tensor, origin_mm: Tensor, spacing_mm: Tensor) -> Tensor:
    """Return the boxes (n, 2, 3), mm, of the voxels of volumes (n, 1, z, y, x) that are not 0, from edge to edge."""
    ends = torch.stack([_shown_ends(volume[0] > 0) for volume in volumes]).to(origin_mm)
    half = torch.tensor([-0.5, 0.5], device=origin_mm.device)[:, None]
    return origin_mm[:, None] + (ends + half) * spacing_mm


def _shown_ends(shown: Tensor) -> Tensor:
    """Return the first and the last index (2, 3), ordered x, y, z, of what is marked in (z, y, x)."""
    plane = shown.any(0)
    ends = []
    for along in (plane.any(0), plane.any(1), shown.flatten(1).any(1)):
        index = along.nonzero()
        ends.append(torch.cat((index[0], index[-1])) if len(index) else torch.tensor([0, -1], device=shown.device))
    return torch.stack(ends, 1)


def rotated(dataset: PairDataset, quarters: int) -> PairDataset:
    """Return every case rotated as a whole, both spaces alike, by so many quarter turns about z (from x to y).

    For scans whose headers name the axes wrongly: 3 quarters bring what lies at -x (where the headers say the patient's
    right is) to +y, the patient's back.
    """
    if quarters % 4 == 0:
        return dataset
    axes = quarter_turn(quarters).to(dataset.center_mm)

    def volume(volumes: Tensor) -> Tensor:
        return volumes.rot90(quarters, (-1, -2))

    def box(corners_mm: Tensor) -> Tensor:
        moved = corners_mm @ axes.mT
        return torch.stack((moved.amin(1), moved.amax(1)), 1)

    def origin(origin_mm: Tensor, volumes: Tensor) -> Tensor:
        return box(_corners_mm(origin_mm, volumes, dataset.spacing_mm))[:, 0]

    return replace(
        dataset,
        fixed=volume(dataset.fixed),
        fixed_mask=volume(dataset.fixed_mask),
        moving=volume(dataset.moving),
        moving_mask=None if dataset.moving_mask is None else volume(dataset.moving_mask),
        fixed_origin_mm=origin(dataset.fixed_origin_mm, dataset.fixed),
        moving_origin_mm=origin(dataset.moving_origin_mm, dataset.moving),
        fixed_box_mm=None if dataset.fixed_box_mm is None else box(dataset.fixed_box_mm),
        moving_box_mm=None if dataset.moving_box_mm is None else box(dataset.moving_box_mm),
        center_mm=dataset.center_mm @ axes.mT,
        rotation=axes @ dataset.rotation @ axes.mT,
        translation_mm=dataset.translation_mm @ axes.mT,
        surface_mm=dataset.surface_mm @ axes.mT,
    )
