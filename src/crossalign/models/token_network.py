"""What networks on tokens share: two extractors, and rounds in which the images look at one another."""

import torch
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.models.crop import check_crops, crop_lattice
from crossalign.models.tokens import STRIDE, WIDTH, Exchange, TokenExtractor
from crossalign.types import Map, Parameters, Shape, Volume

WAVES = (0.5, 1)  # of the places' sines and cosines over half a crop


class TokenNetwork(nn.Module):
    """Extractors of the fixed and the moving crop, places as waves, and `rounds` of exchange (0: none).

    Crops are isotropic at `spacing_mm`; any size that is a multiple of 4 on each axis. A token stands for 4^3 voxels.
    """

    places_mm: Tensor

    def __init__(self, input_shape: Shape, spacing_mm: float, rounds: int) -> None:
        super().__init__()
        if any(size % STRIDE or size < 2 * STRIDE for size in input_shape):
            raise InputError(f"the crop must be a multiple of {STRIDE} (8 or more) on each axis, got {input_shape}")
        self.input_shape = input_shape
        self.token_mm = STRIDE * spacing_mm
        self.fixed_extractor, self.moving_extractor = TokenExtractor(), TokenExtractor()
        depth, height, width = (size // STRIDE for size in input_shape)
        self.lattice = (depth, height, width)
        places = crop_lattice(self.lattice, self.token_mm).float().flatten(0, 2)
        self.register_buffer("places_mm", places, persistent=False)
        self.place = nn.Linear(places.shape[1] * 2 * len(WAVES), WIDTH)
        self.fixed_rounds = nn.ModuleList(Exchange() for _ in range(rounds))
        self.moving_rounds = nn.ModuleList(Exchange() for _ in range(rounds))

    def exchanged(self, fixed: Volume, moving: Volume) -> tuple[tuple[Map, Tensor], tuple[Map, Tensor]]:
        """Return for each crop its features at half size (b, 32, z/2, ...) and its tokens (b, n, 64) after the rounds.

        Raises InputError for crops of another size.
        """
        check_crops(fixed, moving, self.input_shape)
        (half_a, a), (half_b, b) = self.fixed_extractor.both(fixed), self.moving_extractor.both(moving)
        a, b = self._tokens(a), self._tokens(b)
        for fixed_round, moving_round in zip(self.fixed_rounds, self.moving_rounds, strict=True):
            a, b = fixed_round(a, b, self.lattice), moving_round(b, a, self.lattice)
        return (half_a, a), (half_b, b)

    def _tokens(self, features: Map) -> Tensor:
        scaled = self.places_mm / (self.places_mm.amax() + self.token_mm / 2) * torch.pi
        waves = torch.cat([(scaled * f).sin() for f in WAVES] + [(scaled * f).cos() for f in WAVES], -1)
        return features.flatten(2).mT + self.place(waves.to(features.dtype))


class TokenRegression(TokenNetwork):
    """The ablation of CorrespondenceReg's head: the same tokens, flattened into layers that answer six numbers."""

    def __init__(self, input_shape: Shape, spacing_mm: float, rounds: int = 2) -> None:
        super().__init__(input_shape, spacing_mm, rounds)
        self.reduce = nn.Linear(2 * WIDTH, 16)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.ReLU(),
            nn.Linear(16 * len(self.places_mm), 128),
            nn.ReLU(),
            nn.Linear(128, 32),
            nn.ReLU(),
            nn.Linear(32, 6),
        )

    def forward(self, fixed: Volume, moving: Volume) -> Parameters:
        """Return (b, 6): the correction in mm and degrees about the crop's centre, from two crops (b, 1, z, y, x)."""
        (_, a), (_, b) = self.exchanged(fixed, moving)
        answer: Parameters = self.head(self.reduce(torch.cat((a, b), dim=-1)))
        return answer
