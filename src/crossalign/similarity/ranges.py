"""What scores ask of their volumes: finite numbers of one shape, and for many of them values in [0, 1]."""

import torch
from torch import Tensor

from crossalign.errors import InputError

TOLERANCE = 1e-4  # rounding of values that were scaled to [0, 1]


def check_alike(*volumes: Tensor) -> None:
    """Raise InputError where volumes are not finite floating-point numbers, all of one shape."""
    for volume in volumes:
        if not volume.is_floating_point():
            raise InputError(f"a score needs floating-point values, got {volume.dtype}: convert them with .float()")
        if volume.shape != volumes[0].shape:
            shapes = " and ".join(str(tuple(one.shape)) for one in volumes)
            raise InputError(f"a score compares volumes of one shape, got {shapes}: resample them to one grid")
        if volume.numel() == 0:
            raise InputError("a score needs voxels, got an empty volume")
        if not bool(torch.isfinite(volume.detach()).all()):
            raise InputError("a score needs finite values, got NaN or infinite ones: replace them first")


def check_unit_range(*volumes: Tensor) -> None:
    """Raise InputError where a value lies outside [0, 1], by more than rounding.

    The constants of structural similarity, the bins of mutual information and the peak of PSNR are those of that range:
    other values give another number, and no sign of it.
    """
    for volume in volumes:
        low, high = (float(value) for value in torch.aminmax(volume.detach()))
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
            raise InputError(
                f"this score is for values in [0, 1], got {low:g} to {high:g}: scale all images to [0, 1] first, "
                "those of one range alike (8-bit images: divide each by 255)"
            )


def check_scored(*volumes: Tensor) -> None:
    """Raise InputError where volumes are not of one shape, finite, and in [0, 1]."""
    check_alike(*volumes)
    check_unit_range(*volumes)
