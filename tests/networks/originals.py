"""The papers' network written once more, plainly and with the authors' names, from their description alone."""

import torch
from torch import Tensor, nn

PAPER = (32, 96, 96)


class NonLocalCross(nn.Module):
    """theta, g on this path's map, phi on the other's; softmax over this path's positions; W_z = conv, norm."""

    def __init__(self) -> None:
        super().__init__()
        self.g, self.theta, self.phi = (nn.Conv3d(32, 16, 1) for _ in range(3))
        self.W_z = nn.Sequential(nn.Conv3d(16, 32, 1), nn.BatchNorm3d(32))

    def forward(self, this: Tensor, other: Tensor) -> Tensor:
        keys, values = self.theta(this).flatten(2), self.g(this).flatten(2)  # (b, 16, n)
        queries = self.phi(other).flatten(2)
        weights = torch.einsum("bcm,bcn->bmn", queries, keys).softmax(-1)
        gathered = torch.einsum("bmn,bcn->bcm", weights, values).unflatten(-1, this.shape[2:])
        return torch.relu(self.W_z(gathered) + this)


class OriginalNetwork(nn.Module):
    """Attention-Reg, or Feature-Reg without the blocks, at any size that the tests ask for."""

    def __init__(self, shape: tuple[int, int, int] = PAPER, attention: bool = True) -> None:
        super().__init__()
        self.attention = attention
        for path in (1, 2):
            self.add_module(f"path{path}_block1_conv", nn.Conv3d(1, 32, 3, padding=1, bias=False))
            self.add_module(f"path{path}_block1_bn", nn.BatchNorm3d(32))
            self.add_module(f"path{path}_block2_conv", nn.Conv3d(32, 32, 3, padding=1, bias=False))
            self.add_module(f"path{path}_block2_bn", nn.BatchNorm3d(32))
            if attention:
                self.add_module(f"path{path}_block3_NLCross", NonLocalCross())
        self.pathC_bn1, self.pathC_bn2 = nn.BatchNorm3d(64), nn.BatchNorm3d(1)
        self.conv3d_7 = nn.Conv3d(64, 16, 1)
        self.conv3d_8 = nn.Conv3d(16, 4, 3, padding=1)
        self.conv3d_9 = nn.Conv3d(4, 1, 3, padding=1)
        positions = (shape[0] // 2) * (shape[1] // 4) * (shape[2] // 4)
        self.fc1, self.fc2, self.fc3 = nn.Linear(positions, 128), nn.Linear(128, 32), nn.Linear(32, 6)

    def path(self, number: int, x: Tensor) -> Tensor:
        def layer(name: str) -> nn.Module:
            return self.get_submodule(f"path{number}_{name}")

        x = nn.MaxPool3d(3, 2, 1)(torch.relu(layer("block1_bn")(layer("block1_conv")(x))))
        return nn.MaxPool3d(3, (1, 2, 2), 1)(torch.relu(layer("block2_bn")(layer("block2_conv")(x))))

    def forward(self, mr: Tensor, ultrasound: Tensor) -> Tensor:
        a, b = self.path(1, mr), self.path(2, ultrasound)
        if self.attention:
            first, second = self.get_submodule("path1_block3_NLCross"), self.get_submodule("path2_block3_NLCross")
            a, b = first(a, b), second(b, a)
        x = torch.relu(self.conv3d_7(self.pathC_bn1(torch.cat((a, b), dim=1))))
        x = self.conv3d_9(torch.relu(self.conv3d_8(x)))
        x = torch.relu(self.pathC_bn2(x).flatten(1))
        x = torch.relu(self.fc2(torch.relu(self.fc1(x))))
        return self.fc3(x)


def scrambled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and running statistic a value that is nobody's default, and put the network in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif value.dtype.is_floating_point and value.dim() == 1:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3 + 0.2)
            elif value.dtype.is_floating_point:
                fan_in = value[0].numel()
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5)
    return network.eval()
