"""MSReg, the network that Attention-Reg (Song et al., MICCAI 2021) is compared with: a 3-D ResNeXt on both volumes.

Kernels, strides, widths and counts follow the published network. Where its ReLUs stand, and which of its convolutions
carry a bias, is ours: the counts allow what is here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.networks.attention_reg import PAPER_SHAPE
from crossalign.networks.convolution import Convolution3d, convolved
from crossalign.networks.crop import Features, check_crops
from crossalign.types import Parameters, Shape, Volume

GROUPS = 16
JOINT = 128  # channels of the skip convolution and of the residual layers combined
REDUCED = 16
KERNEL = 5


class GroupedConvolution(nn.Conv3d):
    """A 3^3 convolution in 16 groups; on a CPU an equal dense one runs, most of its weights zero.

    With one or two channels in a group the dense kernel takes half the time there, forward and backward.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride, 1, groups=GROUPS, bias=False)

    def forward(self, input: Volume) -> Features:  # noqa: A002 (torch's name)
        """Convolve (b, channels, z, y, x)."""
        if input.device.type != "cpu":
            return super().forward(input)
        return convolved(input, _dense(self.weight), None, self.stride[0])


class GroupedBlock(nn.Module):
    """A ResNeXt block: 1^3, grouped 3^3 and 1^3 convolutions and a shortcut, (b, c, ...) to (b, 2 planes, ...)."""

    def __init__(self, channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        inner, out = GROUPS * (planes // 32), 2 * planes
        self.narrow = nn.Conv3d(channels, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm3d(inner)
        self.grouped = GroupedConvolution(inner, stride)
        self.norm2 = nn.BatchNorm3d(inner)
        self.widen = nn.Conv3d(inner, out, 1, bias=False)
        self.norm3 = nn.BatchNorm3d(out)
        self.shortcut = None if stride == 1 and channels == out else _projection(channels, out, stride)

    def forward(self, features: Volume) -> Features:
        """Transform features; a stride of 2 halves every axis, odd sizes rounded up."""
        x = F.relu(self.norm1(self.narrow(features)))
        x = F.relu(self.norm2(self.grouped(x)))
        shortcut = features if self.shortcut is None else self.shortcut(features)
        return F.relu(self.norm3(self.widen(x)) + shortcut)


class UnusedLayers(nn.Module):
    """Layers of the published network that no output depends on: 5,255,446 parameters, at any crop size.

    A fourth residual layer, a classifier of 400 classes and two more layers. Of their sizes only the sum is known:
    these are plain ones that meet it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = _residual_layer(64, 128, 3, stride=2)
        self.classes = nn.Linear(1024, 400)
        self.linear1 = nn.Linear(9216, 512)
        self.linear2 = nn.Linear(64, 6)


class MSReg(nn.Module):
    """Both volumes as two channels, a 3-D ResNeXt, one skip convolution parallel to it, and three linear layers.

    `input_shape` is the size (z, y, x) of both volumes, 8 voxels or more on each axis, (32, 96, 96) in the paper; the
    first linear layer grows with it. There the network has 10,850,630 parameters; with `unused_layers` it has the
    published 16,106,076, of which 5,255,446 never meet the data and get no gradient: the outputs are the same.
    """

    def __init__(self, input_shape: Shape = PAPER_SHAPE, unused_layers: bool = False) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.stem1 = Convolution3d(2, 32, 3, padding=1, bias=False)
        self.stem_norm1 = nn.BatchNorm3d(32)
        self.stem2 = nn.Conv3d(32, 64, 3, (1, 2, 2), 1, bias=False)
        self.stem_norm2 = nn.BatchNorm3d(64)
        self.skip = Convolution3d(64, 64, 3, 2, 1, bias=False)
        self.layers = nn.Sequential(
            _residual_layer(64, 64, 3), _residual_layer(128, 64, 4), _residual_layer(128, 32, 23, stride=2)
        )
        self.head = _Head(_joint_shape(input_shape))
        self.unused = UnusedLayers() if unused_layers else None  # last: the others are drawn as they are without it

    def forward(self, fixed: Volume, moving: Volume) -> Parameters:
        """Return (b, 6): translation (mm) and static x-y-z Euler angles (degrees) of the correction, from two crops.

        Raises InputError for crops of another size.
        """
        check_crops(fixed, moving, self.input_shape)
        x = F.relu(self.stem_norm1(self.stem1(torch.cat((fixed, moving), dim=1))))
        x = F.max_pool3d(x, 3, 1, 1)
        x = F.relu(self.stem_norm2(self.stem2(x)))  # (b, 64, z, y/2, x/2)
        return self.head(torch.cat((self.skip(x), self.layers(x)), dim=1))  # of (b, 128, z/2, y/4, x/4)


class _Head(nn.Module):
    """Two convolutions and three linear layers; a map smaller than the 5^3 kernel is covered by it whole."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(JOINT)
        self.conv1 = Convolution3d(JOINT, JOINT, 3, padding=1, bias=False)
        depth, height, width = (min(KERNEL, size) for size in shape)
        self.conv2 = nn.Conv3d(JOINT, REDUCED, (depth, height, width))
        left = (shape[0] - depth + 1) * (shape[1] - height + 1) * (shape[2] - width + 1)
        self.linear1 = nn.Linear(REDUCED * left, 128)
        self.linear2 = nn.Linear(128, 32)
        self.linear3 = nn.Linear(32, 6)

    def forward(self, features: Volume) -> Parameters:
        """Regress (b, 6) from (b, 128, z, y, x)."""
        x = F.relu(self.conv1(self.norm(features)))
        x = F.relu(self.conv2(x)).flatten(1)
        return self.linear3(F.relu(self.linear2(F.relu(self.linear1(x)))))


def _joint_shape(input_shape: Shape) -> Shape:
    """Size (z, y, x) of the joint map: 1/2, 1/4 and 1/4 of the input, each halving rounded up."""
    depth, height, width = ((size + 1) // 2 for size in input_shape)
    return (depth, (height + 1) // 2, (width + 1) // 2)


def _dense(weight: Tensor) -> Tensor:
    """Place grouped weights (out, in / groups, 3, 3, 3) along the diagonal of (out, in, 3, 3, 3), zero elsewhere."""
    own = torch.eye(GROUPS, dtype=weight.dtype, device=weight.device).reshape(GROUPS, 1, GROUPS, 1, 1, 1, 1)
    return (weight.reshape(GROUPS, -1, 1, *weight.shape[1:]) * own).flatten(0, 1).flatten(1, 2)


def _residual_layer(channels: int, planes: int, count: int, stride: int = 1) -> nn.Sequential:
    later = (GroupedBlock(2 * planes, planes) for _ in range(count - 1))
    return nn.Sequential(GroupedBlock(channels, planes, stride), *later)


def _projection(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(channels, out, 1, stride, bias=False), nn.BatchNorm3d(out))
