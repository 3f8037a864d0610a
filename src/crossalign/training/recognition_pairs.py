"""Pairs of crops to recognise orientations by: right ones, wrongly rotated ones, and ones that show something else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crossalign.geometry import euler_to_rotation, orientation_rotations, sample
from crossalign.models.recognition_settings import RecognitionSettings
from crossalign.networks.crop import crop_points
from crossalign.networks.recognition import rotated_crop
from crossalign.training.dataset import PairDataset
from crossalign.training.sampling import draw_warp, vary_intensity
from crossalign.training.settings import Augmentation
from crossalign.types import Map, PointGrid, Volume

HALF_TURNS = 3  # first among the wrong candidates
OTHERS = 1  # drawn among the 20 quarter and third turns
DRAWN_OF = 20
CUT_FRACTION = 0.5  # of the sides of a field of view
MASKED_FRACTION = (0.65, 0.3)  # of fixed and of moving crops: those whose structure's mask is known
VIEW_FRACTION = 0.6  # of the crops without a mask: those about the middle of the field of view
NEAR_MM, FAR_MM = 4.0, 15.0  # of a crop's middle from the structure or the middle of the view, along each axis
FIXED_ROTATION_DEG = 8.0
MISLED = 1  # pairs whose fixed crop is rotated wrongly, for each


@dataclass(frozen=True, eq=False)
class RecognitionBatch:
    """Candidates of b pairs: fixed crops (b, 2, s, s, s), and k moving crops of each, (b * k, 2, s, s, s).

    `structures` are the structures (b, 1, s/2, s/2, s/2), 0 to 1, in the fixed and in the first moving crops.
    `weight_log` is the logarithm of how many orientations a candidate stands for.
    `known` (b,) says of which pairs the first candidate is right; of the others none is. `misled` are crops of pairs
    whose fixed crop is rotated wrongly, of which none is right either.
    """

    fixed: Volume
    moving: Map
    structures: tuple[Map, Map]
    weight_log: Float[Tensor, "b k"]
    known: Tensor
    misled: tuple[Map, Map]


@dataclass(frozen=True, eq=False)
class RecognitionPairs:
    """Draws batches from cases, and from volumes (n, 1, s, s, s) that show something else, of the cases' spacing."""

    dataset: PairDataset
    others: Tensor
    settings: RecognitionSettings
    augmentation: Augmentation

    def draw(self, index: Tensor, generator: torch.Generator, none_fraction: float) -> RecognitionBatch:
        """Cut the crops of the cases `index` (b,); about `none_fraction` of them are replaced by something else."""
        fixed, moving, structures = self._cut(index, generator)
        fixed, moving, known = self._replaced(fixed, moving, none_fraction, generator)
        wrong = orientation_rotations()
        candidates, misled_fixed, misled_moving = [], [], []
        for row in range(len(index)):
            drawn = torch.randperm(DRAWN_OF, generator=generator)[:OTHERS] + HALF_TURNS + 1
            turns = [wrong[k] for k in (0, *range(1, HALF_TURNS + 1), *drawn.tolist())]
            candidates += [rotated_crop(moving[row : row + 1], turn) for turn in turns]
            for _ in range(MISLED):
                turn = wrong[int(torch.randint(1, len(wrong), (1,), generator=generator))]
                alike = bool(torch.rand(1, generator=generator) < 0.5)
                other = turn if alike else wrong[int(torch.randint(len(wrong), (1,), generator=generator))]
                misled_fixed.append(rotated_crop(fixed[row : row + 1], turn))
                misled_moving.append(rotated_crop(moving[row : row + 1], other))
        count = 1 + HALF_TURNS + OTHERS
        weight = torch.zeros(len(index), count)
        weight[:, 1 + HALF_TURNS :] = math.log(DRAWN_OF / OTHERS)
        return RecognitionBatch(
            fixed,
            torch.cat(candidates),
            structures,
            weight,
            known,
            (torch.cat(misled_fixed), torch.cat(misled_moving)),
        )

    def _cut(self, index: Tensor, generator: torch.Generator) -> tuple[Volume, Volume, tuple[Map, Map]]:
        """Cut both crops (b, 2, s, s, s) of cases, and their structures; the moving one is rotated at random."""
        settings, count = self.settings, len(index)
        warp = draw_warp(count, settings.extent_mm(), self.augmentation, generator, index.device)
        offsets = crop_points((settings.crop_size,) * 3, settings.crop_spacing_mm).float().flatten(0, 2)
        sides, structures = [], []
        for moving in (False, True):
            box = self._box(index, moving, generator)
            has_mask = torch.rand(count, generator=generator) < MASKED_FRACTION[moving]
            middle = self._middle(index, box, moving, has_mask, generator)
            limit = settings.rotation_deg if moving else FIXED_ROTATION_DEG
            angle = (torch.rand(count, 3, generator=generator) * 2 - 1) * (limit * math.pi / 180)
            linear = warp.matrix @ euler_to_rotation(angle)
            if moving:
                linear = self.dataset.rotation[index] @ linear
            points = offsets @ linear.mT + middle[:, None]
            image, mask = self._sampled(index, points.reshape(count, *(settings.crop_size,) * 3, 3), box, moving)
            image = vary_intensity(image, self.augmentation, generator)
            structures.append(F.avg_pool3d(mask, 2))
            sides.append(torch.cat((image, mask * has_mask[:, None, None, None, None]), 1))
        return sides[0], sides[1], (structures[0], structures[1])

    def _box(self, index: Tensor, moving: bool, generator: torch.Generator) -> Tensor:
        """Cut half of the sides of the field of view (b, 2, 3), mm, by 0 to `cut_mm`."""
        extent = (self.dataset.moving_extent_mm if moving else self.dataset.fixed_extent_mm)[index]
        size = len(index), 2, 3
        cut = torch.rand(size, generator=generator) * (torch.rand(size, generator=generator) < CUT_FRACTION)
        return extent + cut * self.augmentation.cut_mm * torch.tensor([1.0, -1.0])[:, None]

    def _middle(self, index: Tensor, box: Tensor, moving: bool, has_mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return the crop's middle (b, 3): near the structure where its mask is known, else about the field of view."""
        count = len(index)
        structure = self.dataset.center_mm[index]
        if moving:
            structure = self.dataset.reference(index).apply(structure[:, None])[:, 0]
        near, far = ((torch.rand(count, 3, generator=generator) * 2 - 1) * most for most in (NEAR_MM, FAR_MM))
        by_view = torch.rand(count, generator=generator) < VIEW_FRACTION
        free = torch.where(by_view[:, None], box.mean(1) + near, structure + far)
        return torch.where(has_mask[:, None], structure + near, free)

    def _sampled(self, index: Tensor, points: PointGrid, box: Tensor, moving: bool) -> tuple[Volume, Volume]:
        """Sample images and masks (b, 1, z, y, x) at points (b, z, y, x, 3); images are 0 outside of a box."""
        data = self.dataset
        names = ("moving", "moving_mask") if moving else ("fixed", "fixed_mask")
        image, mask = (data.tensors()[name][index] for name in names)
        origin = (data.moving_origin_mm if moving else data.fixed_origin_mm)[index][:, None, None, None]
        values = sample(torch.cat((image, mask), 1).float(), (points - origin) / data.spacing_mm)
        low, high = box[:, 0][:, None, None, None], box[:, 1][:, None, None, None]
        inside = ((points >= low) & (points <= high)).all(-1)[:, None]
        return values[:, :1] * inside, values[:, 1:].clamp(min=0)

    def _replaced(
        self, fixed: Volume, moving: Volume, none_fraction: float, generator: torch.Generator
    ) -> tuple[Volume, Volume, Tensor]:
        """Replace some pairs by two scans of one kind, or by something else on one side or on both."""
        fixed, moving, count = fixed.clone(), moving.clone(), len(fixed)
        known = torch.rand(count, generator=generator) >= none_fraction
        originals = fixed.clone(), moving.clone()
        for row in torch.nonzero(~known)[:, 0].tolist():
            kind = int(torch.randint(6, (1,), generator=generator))
            neighbour = (row + 1) % count
            if kind == 0:
                moving[row, 0] = originals[0][neighbour, 0]
            elif kind == 1:
                fixed[row, 0] = originals[1][neighbour, 0]
            if kind in (2, 3, 4):
                moving[row, 0] = self._other(generator)
            if kind in (3, 4, 5):
                fixed[row, 0] = self._other(generator)
        return fixed, moving, known

    def _other(self, generator: torch.Generator) -> Tensor:
        """Cut a crop (s, s, s) of something else, in any orientation."""
        settings = self.settings
        number = int(torch.randint(len(self.others), (1,), generator=generator))
        step, size = float(self.dataset.spacing_mm), settings.crop_size
        volume = self.others[number : number + 1].float()
        turn = orientation_rotations()[int(torch.randint(24, (1,), generator=generator))].float()
        angle = (torch.rand(1, 3, generator=generator) * 2 - 1) * (15 * math.pi / 180)
        points = crop_points((size,) * 3, settings.crop_spacing_mm).float() @ (turn @ euler_to_rotation(angle)[0]).mT
        shift = (torch.rand(3, generator=generator) * 2 - 1) * 12.0
        voxels = (points + shift) / step + (volume.shape[-1] - 1) / 2
        return vary_intensity(sample(volume, voxels[None]), self.augmentation, generator)[0, 0]
