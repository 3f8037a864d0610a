"""The preprocessed images of a problem, and the crops that networks are given of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.errors import ImageError
from crossalign.geometry import Rigid, sample
from crossalign.images import Image, LabelMap
from crossalign.images.preprocessing import preprocess, preprocess_mask, whole_working_grid
from crossalign.models import StageSettings
from crossalign.networks.crop import crop_points
from crossalign.registration.problem import Problem
from crossalign.types import Map, PointGrid, Points, Vector, Volume

CROP_MARGIN_MM = 30.0  # around the first crop, where only a part of a very large image is preprocessed
FEWEST_VOXELS = 2  # of an image along a crop: with fewer the crop shows nothing


class PreprocessedPair:
    """Both images, preprocessed once for each working spacing; of very large ones the part that is needed."""

    def __init__(self, problem: Problem, device: torch.device) -> None:
        self._problem, self._device = problem, device
        self._ready: dict[tuple[str, float], _PreprocessedImage] = {}

    def crops(
        self, settings: StageSettings, center_mm: Vector, fixed_to_moving: Rigid, rotation: Tensor
    ) -> tuple[Volume, Map]:
        """Cut both crops (b, 1, z, y, x) of a stage through a batch of b transforms, on the device.

        The moving one has a second channel, the moving mask, where the stage is given it. Voxel for voxel both show the
        same point: a fixed point about `center_mm`, and where the transform maps it. `rotation` (3, 3) brings the
        headers' axes to those that the crops have.
        """
        points = crop_points(settings.crop_shape, settings.crop_spacing_mm) @ rotation + center_mm
        mapped = fixed_to_moving.to("cpu", torch.float64).apply(points.flatten(0, 2)).reshape(-1, *points.shape)
        fixed = self._preprocessed(settings.fixed_input, settings, points.flatten(0, 2))
        fixed_crop = _sampled(fixed, points[None]).to(self._device)
        parts = ("moving", "moving label") if settings.takes_moving_mask() else ("moving",)
        moving = [_sampled(self._preprocessed(part, settings, mapped.flatten(0, 3)), mapped) for part in parts]
        return fixed_crop.expand(len(mapped), -1, -1, -1, -1), torch.cat(moving, dim=1).to(self._device)

    def _preprocessed(self, which: str, settings: StageSettings, points_mm: Points) -> Image:
        """Return the working image that points (n, 3) are sampled from; raises ImageError where there cannot be one."""
        key, spacing_mm = (which, settings.working_spacing_mm), settings.working_spacing_mm
        box = torch.stack((points_mm.amin(0), points_mm.amax(0))).nan_to_num(0.0, 0.0, 0.0)
        ready = self._ready.get(key)
        if ready is not None and ready.holds(box):
            return ready.image
        scan, mask = self._source(which)
        _check_voxels(scan, settings)
        del ready
        self._ready.pop(key, None)  # ahead of making another, so that one at a time is in memory
        wide = torch.stack((box[0] - CROP_MARGIN_MM, box[1] + CROP_MARGIN_MM))
        whole = whole_working_grid(scan, spacing_mm)
        image = preprocess(scan, spacing_mm, wide) if mask is None else preprocess_mask(mask, spacing_mm, wide)
        self._ready[key] = _PreprocessedImage(image, image.grid.shape == whole.shape, wide)
        return image

    def _source(self, which: str) -> tuple[Image, LabelMap | None]:
        """Return the scan that a working image lies on, and the mask that it shows where it is a mask's."""
        problem = self._problem
        if which.startswith("moving"):
            return problem.moving, problem.moving_mask if which == "moving label" else None
        return problem.fixed, problem.fixed_mask if which == "label" else None


@dataclass(frozen=True, eq=False)
class _PreprocessedImage:
    """A working image, or the part of it about a box (2, 3), its lowest and highest x, y, z."""

    image: Image
    whole: bool
    box_mm: Points

    def holds(self, box_mm: Points) -> bool:
        """Say whether the points of another box are sampled as from the whole working image."""
        return self.whole or bool((box_mm[0] >= self.box_mm[0]).all() and (box_mm[1] <= self.box_mm[1]).all())


def _check_voxels(scan: Image, settings: StageSettings) -> None:
    extent = settings.extent_mm()
    if max(scan.grid.spacing_mm) * FEWEST_VOXELS > extent:
        steps = " x ".join(f"{step:.4g}" for step in scan.grid.spacing_mm)
        raise ImageError(
            f"{scan.name}: voxels of {steps} mm: the network's crop of {extent:g} mm holds fewer than {FEWEST_VOXELS}: "
            "check the spacing in the header and its unit (mm), or use --method mi"
        )


def _sampled(preprocessed: Image, points_mm: PointGrid) -> Volume:
    """Sample an image at (b, z, y, x, 3) points; the batch is laid along z, so that the image is not copied."""
    voxels = preprocessed.grid.to_voxel(points_mm.flatten(0, 3)).reshape(points_mm.flatten(0, 1).shape)
    return sample(preprocessed.voxels[None, None], voxels[None]).reshape(-1, 1, *points_mm.shape[1:4])
