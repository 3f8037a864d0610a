"""Convolutions of volumes by what torch computes fast on a CPU. Weights and their names are those of `nn.Conv3d`.

torch gives a convolution of one float32 volume to its library oneDNN only where the volume is large; its own loop takes
three times as long. A batch of slices goes to the library too, and a 3-D convolution is a 2-D one of slices whose
channels are those of three neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 20480  # torch's own bound on batch x channels x z x y, above which it calls oneDNN
FEW_CHANNELS = 2  # a convolution of so few is faster by slices at any size


class Convolution3d(nn.Conv3d):
    """A convolution of (b, c, z, y, x), stored channels last: of size 1, or 3 with padding 1 and stride 1 or 2."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Convolve."""
        return convolved(input, self.weight, self.bias, self.stride[0])


class NormalisedConvolution(nn.Sequential):
    """A convolution without bias, batch normalisation, and ReLU: their names are 0, 1 and 2."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        convolution = Convolution3d(channels, out, 3, stride, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm3d(out), nn.ReLU())

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Convolve, normalise and rectify."""
        return F.relu(normalised(self[0], self[1], input))


def normalised(convolution: nn.Module, norm: nn.Module, volume: Tensor) -> Tensor:
    """Return `norm(convolution(volume))`; in use, when the normalisation is fixed, its factors go into the weights."""
    if norm.training or not isinstance(convolution, Convolution3d):
        return norm(convolution(volume))
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    weight, bias, small = (getattr(norm, name) for name in ("weight", "bias", "eps"))
    scale: Tensor = weight * torch.rsqrt(variance + small)
    shift = bias - mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    return convolved(volume, convolution.weight * scale.reshape(-1, 1, 1, 1, 1), shift, convolution.stride[0])


def convolved(volume: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Convolve (b, c, z, y, x) by a kernel of 1^3 with stride 1, or of 3^3 with padding 1 and any stride."""
    if weight.shape[-1] == 1:
        return F.linear(volume.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
    if _by_slices(volume):
        return _slices_convolved(volume, weight, bias, stride)
    return F.conv3d(volume, weight, bias, stride, 1)


def _by_slices(volume: Tensor) -> bool:
    """Tell whether torch would convolve a volume slowly; never where a graph for any batch is being made."""
    if torch.compiler.is_compiling() or volume.device.type != "cpu":
        return False
    if volume.shape[1] <= FEW_CHANNELS:
        return True
    return volume.dtype == torch.float32 and volume.shape[0] == 1 and volume[..., 0].numel() <= LARGE


def _slices_convolved(volume: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    batch, _, depth = volume.shape[:3]
    padded = F.pad(volume.movedim(1, -1), (0, 0, 0, 0, 0, 0, 1, 1))  # (b, z + 2, y, x, c)
    neighbours = torch.cat([padded[:, first : first + depth : stride] for first in range(3)], dim=-1)
    slices = neighbours.flatten(0, 1).movedim(-1, 1)  # (b z, 3 c, y, x), channels last
    kernel = weight.movedim(2, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    convolved = F.conv2d(slices, kernel, bias, stride, 1)
    return convolved.reshape(batch, -1, *convolved.shape[1:]).transpose(1, 2)
