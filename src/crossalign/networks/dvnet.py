"""A stand-in for DVNet: the paper (Song et al., MICCAI 2021) gives its parameter count and no architecture.

All that is known of DVNet is that a 2-D network sees the volumes' slices as channels, and that it has 5,275,832
parameters. Everything else here is ours, and the widths are chosen so that the count is met: its results say nothing
about the DVNet of the paper beyond "a 2-D network of this size".
"""

from itertools import pairwise

import torch
from torch import nn

from crossalign.networks.attention_reg import PAPER_SHAPE
from crossalign.networks.crop import check_crops
from crossalign.types import Parameters, Shape, Volume

WIDTHS = (64, 96, 256, 256, 448)
REDUCED = 32
HIDDEN = (192, 158)


class DVNetStandIn(nn.Module):
    """A stand-in for DVNet: a plain 2-D convolutional network whose input channels are the slices of both volumes.

    `input_shape` is the size (z, y, x) of both volumes, 8 voxels or more on each axis; the first convolution grows
    with z, the first linear layer with y and x. At the paper's (32, 96, 96) it has the published 5,275,832 parameters.
    """

    def __init__(self, input_shape: Shape = PAPER_SHAPE) -> None:
        super().__init__()
        self.input_shape = input_shape
        depth, height, width = input_shape
        parts = [_convolution(2 * depth, WIDTHS[0], 1)]
        for before, after in pairwise(WIDTHS):
            parts += [_convolution(before, after, 2), _convolution(after, after, 1)]
            height, width = (height + 1) // 2, (width + 1) // 2
        self.convolutions = nn.Sequential(*parts, nn.Conv3d(WIDTHS[-1], REDUCED, 1), nn.ReLU())
        self.linears = nn.Sequential(
            nn.Linear(REDUCED * height * width, HIDDEN[0]),
            nn.ReLU(),
            nn.Linear(HIDDEN[0], HIDDEN[1]),
            nn.ReLU(),
            nn.Linear(HIDDEN[1], 6),
        )

    def forward(self, fixed: Volume, moving: Volume) -> Parameters:
        """Return (b, 6): translation (mm) and static x-y-z Euler angles (degrees) of the correction, from two crops.

        Raises InputError for crops of another size.
        """
        check_crops(fixed, moving, self.input_shape)
        slices = torch.cat((fixed, moving), dim=2).transpose(1, 2)  # (b, 2z, 1, y, x): a plane, its slices as channels
        return self.linears(self.convolutions(slices).flatten(1))


def _convolution(channels: int, out: int, stride: int) -> nn.Sequential:
    """Convolve in the plane. The layer is 3-D, one voxel deep: training lays 3-D weights out for the CPU."""
    convolution = nn.Conv3d(channels, out, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(out), nn.ReLU())
