"""Cross-modal attention: Eq. 1 of Song et al., MICCAI 2021."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.types import Volume


class CrossModalAttention(nn.Module):
    """Gather features of the primary map wherever they match a feature of the other map, and add the primary map.

    y_i = sum_j softmax_j(query(other_i) . key(primary_j)) value(primary_j); the output is relu(BN(W y) + primary).
    No 1/sqrt(d), as in the paper. The paper's names: query = theta, key = phi in Eq. 1.
    """

    def __init__(self, channels: int = 32, inner: int = 16) -> None:
        super().__init__()
        self.query = nn.Conv3d(channels, inner, 1)
        self.key = nn.Conv3d(channels, inner, 1)
        self.value = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.norm = nn.BatchNorm3d(channels)

    def forward(self, primary: Volume, other: Volume) -> Volume:
        """Attend; both maps are (b, channels, z, y, x), of one size. Raises InputError where they are not."""
        if primary.shape != other.shape:
            raise InputError(f"the two maps must have one size, got {tuple(primary.shape)} and {tuple(other.shape)}")
        query, key, value = _tokens(self.query(other)), _tokens(self.key(primary)), _tokens(self.value(primary))
        gathered = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (b, 1, zyx, inner), map not stored
        mixed = self.out(gathered[:, 0].mT.reshape(len(primary), -1, *primary.shape[2:]))
        return F.relu(self.norm(mixed) + primary)

    def attention_map(self, primary: Volume, other: Volume) -> Tensor:
        """Return the map itself, (b, positions of other, positions of primary): rows sum to 1."""
        query, key = _tokens(self.query(other)), _tokens(self.key(primary))
        return torch.softmax(query[:, 0] @ key[:, 0].mT, dim=-1)


def _tokens(volume: Volume) -> Tensor:
    """Flatten (b, c, z, y, x) to (b, 1, zyx, c), contiguous: on a CPU the kernel that stores no map demands it."""
    return volume.flatten(2).mT.contiguous()[:, None]
