"""The recognition network on two scans: how likely each orientation of their axes is, and that they are others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from crossalign.errors import WeightsError
from crossalign.geometry import sample
from crossalign.images import Image, LabelMap
from crossalign.images.preprocessing import preprocess, preprocess_mask
from crossalign.models.pretrained import shipped_path
from crossalign.models.recognition import load_recognition
from crossalign.models.recognition_settings import RecognitionSettings
from crossalign.networks.crop import crop_points
from crossalign.networks.recognition import RecognitionNet, rotated_crop
from crossalign.registration.initialisation import shown_center_mm
from crossalign.types import Map, PointGrid, Rotations, Triple, Volume

SHIPPED = "orientation"
TEMPERATURE = 0.5  # chosen with the thresholds of `registration.orientation`
# The moving crop is cut about the middle of the field of view and about points beside it, mm, and the scores averaged.
SHIFTS_MM: tuple[Triple, ...] = (
    (0.0, 0.0, 0.0),
    *((side, 0.0, 0.0) for side in (-6.0, 6.0)),
    *((0.0, side, 0.0) for side in (-6.0, 6.0)),
    *((0.0, 0.0, side) for side in (-6.0, 6.0)),
)


@dataclass(frozen=True, eq=False)
class Recognition:
    """How likely each pair of rotations is: `probability` (f, m), of f of the fixed and m of the moving image.

    A rotation (3, 3) brings the axes that a crop was cut along to the patient's.
    `none_probability` is that of scans which are no prostate's MR and transrectal ultrasound in any of these.
    """

    fixed_rotations: Float[Tensor, "f 3 3"]
    moving_rotations: Float[Tensor, "m 3 3"]
    probability: Float[Tensor, "f m"]
    none_probability: float


@dataclass(frozen=True, eq=False)
class ScanView:
    """A scan, its structure's mask or None, the axes to cut its crop along, and the rotations (n, 3, 3) to score.

    `axes` (3, 3) rotates the scan's world to the axes of the crop.
    """

    image: Image
    mask: LabelMap | None
    axes: Tensor
    rotations: Rotations


@dataclass(frozen=True, eq=False)
class Recognizer:
    """The network, the settings of its crops, and the temperature by which its scores are divided."""

    network: RecognitionNet
    settings: RecognitionSettings
    temperature: float = TEMPERATURE

    @torch.no_grad()
    def recognize(self, fixed: ScanView, moving: ScanView) -> Recognition:
        """Score the rotations of two scans. Raises ImageError for a scan that cannot be preprocessed."""
        encoded, _ = self.network.fixed_encoder(_every_way(self.crops(fixed, SHIFTS_MM[:1]), fixed.rotations))
        scores = torch.zeros(len(fixed.rotations), len(moving.rotations), dtype=torch.float64)
        for crop in self.crops(moving, SHIFTS_MM):
            turned, _ = self.network.moving_encoder(_every_way(crop[None], moving.rotations))
            for row, one in enumerate(encoded):
                scores[row] += self.network.compare(one.expand_as(turned), turned).double() / len(SHIFTS_MM)
        every = torch.cat((scores.flatten() / self.temperature, torch.zeros(1, dtype=torch.float64))).softmax(0)
        return Recognition(fixed.rotations, moving.rotations, every[:-1].reshape(scores.shape), float(every[-1]))

    def crops(self, view: ScanView, shifts_mm: Sequence[Triple]) -> Volume:
        """Cut crops (n, 2, s, s, s) about points beside the structure, or beside the middle of what the scan shows."""
        settings, step = self.settings, self.settings.working_spacing_mm
        near = view.image.grid.corners_mm()
        image = preprocess(view.image, step, near)
        middle = shown_center_mm(image) if view.mask is None else view.mask.centroid_mm()
        offsets = crop_points((settings.crop_size,) * 3, settings.crop_spacing_mm)
        shifts = torch.tensor(shifts_mm, dtype=torch.float64)[:, None, None, None]
        points = (offsets + shifts) @ view.axes + middle
        shown = _sampled(image, points)
        marked = torch.zeros_like(shown)
        if view.mask is not None:
            marked = _sampled(preprocess_mask(view.mask, step, near), points)
        return torch.cat((shown, marked), 1).to(next(self.network.parameters()))


def _every_way(crop: Volume, rotations: Rotations) -> Map:
    """Rotate one crop (1, 2, s, s, s) by n rotations, (n, 2, s, s, s)."""
    return torch.cat([rotated_crop(crop, one) for one in rotations])


@lru_cache
def shipped_recognizer() -> Recognizer | None:
    """Load the recognition network that comes in the package; None where it was installed without models."""
    path = shipped_path(SHIPPED)
    return None if path is None else recognizer_of(path)


def recognizer_of(path: Path) -> Recognizer:
    """Load a recognition network. Raises WeightsError."""
    network, settings = load_recognition(path)
    if not isinstance(network, RecognitionNet):
        raise WeightsError(f"{path.name}: holds no recognition network")
    return Recognizer(network, settings)


def _sampled(image: Image, points_mm: PointGrid) -> Volume:
    """Sample an image at points (b, z, y, x, 3); the batch is laid along z, so that the image is not copied."""
    voxels = image.grid.to_voxel(points_mm.flatten(0, 3)).reshape(points_mm.flatten(0, 1).shape)
    return sample(image.voxels[None, None], voxels[None]).reshape(-1, 1, *points_mm.shape[1:4])
