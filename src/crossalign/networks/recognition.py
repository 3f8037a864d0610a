"""Recognition: whether two crops show a prostate in MR and in transrectal ultrasound, both in the patient's axes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossalign.networks.convolution import Convolution3d
from crossalign.networks.crop import Features
from crossalign.types import Map, Rotations, Volume

CHANNELS = 2  # of either crop: the image, and the structure's mask (0 throughout where none is known)
AXES = (-1, -2, -3)  # of a tensor (z, y, x), by those of points (x, y, z)


def rotated_crop(crop: Volume, rotation: Rotations) -> Volume:
    """Rotate cubes (b, c, s, s, s) by one rotation (3, 3) that brings axes to axes: out(R p) = in(p), exactly."""
    sources = rotation.abs().argmax(-1).tolist()
    signs = rotation.sum(-1).tolist()
    last = crop.dim() - 1
    order = list(range(crop.dim()))
    for axis, source in enumerate(sources):
        order[last - axis] = last - source
    return crop.permute(order).flip([AXES[axis] for axis, sign in enumerate(signs) if sign < 0])


class CropEncoder(nn.Module):
    """Takes a crop (b, 2, 24, 24, 24) to features (b, f, 6, 6, 6), among them where it sees the structure."""

    def __init__(self, stem: int, features: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_layer(CHANNELS, stem, 5, 2))
        self.down = nn.Sequential(*_layer(stem, features, 3, 2))
        self.up = Convolution3d(features, 8 * stem, 1)
        self.structure = nn.Sequential(*_layer(stem, stem, 3, 1), Convolution3d(stem, 1, 3, padding=1))

    def forward(self, crop: Volume) -> tuple[Features, Map]:
        """Return the features, and the logits (b, 1, 12, 12, 12) of the structure in voxels of twice the size."""
        fine = self.stem(crop)
        coarse = self.down(fine)
        logits = self.structure(fine + _spread(self.up(coarse)))
        return torch.cat((coarse, _gathered(logits.sigmoid())), 1), logits


class RecognitionNet(nn.Module):
    """Scores pairs of crops; the score is the log-odds against a pair that does not look like that.

    Either crop is a cube of 24 voxels on a side with two channels. An encoder of its own takes each to 6 x 6 x 6
    positions and segments the structure, and layers that they share compare them. `width` scales all layers.
    """

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        stem, features, joint, last = 2 * width, 4 * width, 6 * width, 8 * width
        self.fixed_encoder = CropEncoder(stem, features)
        self.moving_encoder = CropEncoder(stem, features)
        self.comparison = nn.Sequential(
            *_layer(2 * (features + 8), joint, 3, 1),
            *_layer(joint, joint, 3, 1),
            *_layer(joint, last, 3, 2),
            *_layer(last, last, 3, 1),
        )
        self.head = nn.Sequential(
            nn.AvgPool3d(2, 1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * last, 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, fixed: Volume, moving: Volume) -> Float[Tensor, " b"]:
        """Return the scores (b,) of crops (b, 2, 24, 24, 24)."""
        return self.compare(self.fixed_encoder(fixed)[0], self.moving_encoder(moving)[0])

    def compare(self, fixed: Features, moving: Features) -> Float[Tensor, " b"]:
        """Return the scores (b,) of encoded crops."""
        scores: Tensor = self.head(self.comparison(torch.cat((fixed, moving), 1)))[:, 0]
        return scores


def _gathered(volume: Tensor) -> Tensor:
    """Turn blocks of 2 x 2 x 2 voxels (b, c, 2z, 2y, 2x) into channels (b, 8c, z, y, x)."""
    b, c, z, y, x = volume.shape
    blocks = volume.reshape(b, c, z // 2, 2, y // 2, 2, x // 2, 2)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, 8 * c, z // 2, y // 2, x // 2)


def _spread(volume: Tensor) -> Tensor:
    """Undo `_gathered`."""
    b, c, z, y, x = volume.shape
    blocks = volume.reshape(b, c // 8, 2, 2, 2, z, y, x)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // 8, 2 * z, 2 * y, 2 * x)


def _layer(channels: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
    kind = Convolution3d if kernel == 3 else nn.Conv3d
    convolution = kind(channels, out, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.GroupNorm(2, out), nn.ReLU()]
