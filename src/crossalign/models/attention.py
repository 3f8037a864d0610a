"""Cross-modal attention: Eq. 1 of Song et al., MICCAI 2021."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        """Attend; both maps are (b, channels, z, y, x) and may differ in size only along no axis."""
        query, key, value = (_tokens(layer(x)) for layer, x in self._inputs(primary, other))
        gathered = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (b, 1, zyx, inner), map not stored
        mixed = self.out(gathered[:, 0].mT.reshape(len(primary), -1, *primary.shape[2:]))
        return F.relu(self.norm(mixed) + primary)

    def attention_map(self, primary: Volume, other: Volume) -> Tensor:
        """Return the map itself, (b, other's positions, primary's positions); each row sums to 1. Costs their product."""
        query, key = _tokens(self.query(other)), _tokens(self.key(primary))
        return torch.softmax(query[:, 0] @ key[:, 0].mT, dim=-1)

    def _inputs(self, primary: Volume, other: Volume) -> tuple[tuple[nn.Module, Volume], ...]:
        return (self.query, other), (self.key, primary), (self.value, primary)


def _tokens(volume: Volume) -> Tensor:
    """Flatten (b, c, z, y, x) to (b, 1, zyx, c), contiguous: the kernel that never stores the map demands it on a CPU."""
    return volume.flatten(2).mT.contiguous()[:, None]
