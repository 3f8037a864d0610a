"""Bank: every case of a split as tensors of one size on the training device, to cut crops from without files."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, sample
from crossalign.output import whole_file
from crossalign.types import PointLattice, Volume


@dataclass(frozen=True, eq=False)
class Bank:
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

    def to(self, device: torch.device | str) -> Bank:
        """Return the bank on another device."""
        return Bank(**{name: value.to(device) for name, value in self._tensors().items()})

    def take(self, index: Tensor) -> Bank:
        """Return the bank of these cases alone."""
        picked = {name: value[index] for name, value in self._tensors().items() if name != "spacing_mm"}
        return Bank(**picked, spacing_mm=self.spacing_mm)

    def save(self, path: Path, overwrite: bool = False) -> None:
        """Write the tensors to a safetensors file, to train where no image reader is. Raises OutputError."""
        with whole_file(path, overwrite) as partial:
            save_file({name: value.contiguous() for name, value in self._tensors().items()}, partial)

    def _tensors(self) -> dict[str, Tensor]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @staticmethod
    def load(path: Path) -> Bank:
        """Read what `save` wrote; raises InputError."""
        try:
            return Bank(**load_file(path))
        except (SafetensorError, OSError, TypeError) as error:
            raise InputError(f"{path}: not a bank of cases: {error}") from error
