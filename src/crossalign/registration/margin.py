"""How far points lie from the fixed structure: which voxels an iterative method looks at."""

import numpy as np
import SimpleITK as sitk
import torch

from crossalign.images import Image, LabelMap
from crossalign.images.files import to_sitk


def distance_image(mask: LabelMap) -> Image:
    """Distance of each voxel from the structure's surface, mm, below 0 within it, on the mask's grid."""
    distance = distance_map(mask)
    return Image(torch.from_numpy(sitk.GetArrayFromImage(distance).astype(np.float32)), mask.grid, mask.name)


def distance_map(mask: LabelMap) -> sitk.Image:
    """Return `distance_image` as a SimpleITK image."""
    inside = to_sitk((mask.labels != 0).numpy().astype(np.uint8), mask.grid)
    return sitk.SignedMaurerDistanceMap(inside, squaredDistance=False, useImageSpacing=True)
