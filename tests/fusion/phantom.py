"""A small head: scalp, skull, cortex and white matter in MRI and PET, and lesions in either."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.fusion import FusionResult
from crossalign.fusion.fused_files import sidecar_path, write_fusion
from crossalign.geometry import Grid
from crossalign.images import Image, read_image
from crossalign.output import whole_files

SHAPE = (44, 48, 46)
CENTER = (22.0, 24.0, 23.0)


def _radius(shape, center, semi_axes):
    axes = [torch.arange(n, dtype=torch.float32) for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    parts = [((a - c) / s) ** 2 for a, c, s in zip((z, y, x), center, semi_axes, strict=True)]
    return sum(parts).sqrt()


def head(seed: int = 0) -> tuple[Tensor, Tensor]:
    """MRI and PET (z, y, x) in [0, 1]: white matter bright in the MRI, cortex bright in the PET; noise in both."""
    r = _radius(SHAPE, CENTER, (18.0, 21.0, 19.0))
    folds = 0.06 * torch.sin(5 * torch.arange(SHAPE[2]) / 3) * torch.cos(torch.arange(SHAPE[1])[:, None] / 2)
    mri, pet = torch.zeros(SHAPE), torch.zeros(SHAPE)
    for outer, in_mri, in_pet in ((1.0, 0.7, 0.1), (0.94, 0.1, 0.05), (0.86, 0.25, 0.1)):
        mri[r < outer], pet[r < outer] = in_mri, in_pet
    mri[r < 0.8 + folds], pet[r < 0.8 + folds] = 0.5, 0.6
    mri[r < 0.62 + folds], pet[r < 0.62 + folds] = 0.8, 0.25
    generator = torch.Generator().manual_seed(seed)
    pet = blurred(pet) + 0.02 * torch.randn(SHAPE, generator=generator) * (r < 1)
    mri = mri + 0.02 * torch.randn(SHAPE, generator=generator)
    return mri.clamp(0, 1), pet.clamp(0, 1)


def blurred(volume: Tensor) -> Tensor:
    """Three passes of a 3-voxel mean: about a PET scanner's blur."""
    for _ in range(3):
        volume = F.avg_pool3d(volume[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    return volume


def ball(center: tuple[int, int, int], radius: float) -> Tensor:
    """Mask of a lesion, (z, y, x)."""
    return _radius(SHAPE, center, (radius,) * 3) < 1


def grid(spacing=(2.0, 2.0, 2.0), origin=(0.0, 0.0, 0.0)) -> Grid:
    return Grid(SHAPE, spacing, origin)


def pair() -> tuple[Image, Image]:
    """The head as two images in units of their own."""
    mri, pet = head()
    return Image(mri * 900 + 100, grid(), "mri.nii.gz"), Image(pet * 12, grid(), "pet.nii.gz")


def frame(width: int = 4) -> Tensor:
    """Mask of a frame about the volume, (z, y, x)."""
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    inside[width:-width, width:-width, width:-width] = True
    return ~inside


def with_frame(image: Image, value: float, width: int = 4) -> Image:
    """Set a frame about an image to a value."""
    return Image(torch.where(frame(width), torch.tensor(value), image.voxels), image.grid, image.name)


def brainweb(folder: Path) -> tuple[Image, Image]:
    """MRI and PET of BrainWeb's subject 06, exactly aligned; `folder` is that of `shared_data`."""
    mri, pet = (read_image(folder / "brain" / f"brainweb06_{kind}_2mm.nii.gz") for kind in ("t1", "pet"))
    return mri, pet


def write(result: FusionResult, path: Path) -> tuple[Path, Path]:
    """Write a fused volume and its JSON file, as the command line does."""
    paths = path, sidecar_path(path)
    with whole_files(paths) as partials:
        write_fusion(result, *partials)
    return paths
