"""Fusion by a trained network in overlapping tiles, and every fusion method by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from crossalign.errors import InputError
from crossalign.fusion.classical import Average, LaplacianPyramid, Maximum, WaveletFusion
from crossalign.fusion.networks.dcfb import padded_to
from crossalign.fusion.networks.model_files import FusionStage, apply_fusion_model, load_fusion_stage
from crossalign.fusion.result import FusionMethod
from crossalign.models.pretrained import check_shipped, shipped_fusion_names, shipped_fusion_path
from crossalign.types import Scan, Shape

# Emphasis by name, as the command line spells it.
EMPHASES = {"balanced": 0.0, "detail": 1.0}
LARGEST_TILE = 192
OVERLAP = 64
DEFAULT_NETWORK = "dcfb-compact"
# Of memory, a voxel, as measured: of the tile that goes through the compact network, and of the whole beside it.
RUNNING_BYTES, PAIR_BYTES, TILED_BYTES = 330, 12, 24


@dataclass(frozen=True, eq=False)
class NetworkFusion(FusionMethod):
    """A trained network with its emphasis, from 0 (balanced) to 1 (detail).

    Volumes longer than `tile` voxels on an axis are fused by tiles that overlap by 64 voxels or more, blended with a
    Gaussian weight; tiles start at multiples of the network's windows, so that they see what the whole would.
    """

    stage: FusionStage
    emphasis: float = 0.0
    tile: int = LARGEST_TILE
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    label: str = DEFAULT_NETWORK

    def __post_init__(self) -> None:
        if not 0 <= self.emphasis <= 1:
            raise InputError(f"the emphasis runs from 0 (balanced) to 1 (detail), got {self.emphasis}")
        if self.tile < 2 * OVERLAP:
            raise InputError(f"tiles must be {2 * OVERLAP} voxels or more, got {self.tile}")

    @property
    def name(self) -> str:
        """The weights' name, with the emphasis where it is not the default."""
        words = {value: word for word, value in EMPHASES.items()}
        return self.label if self.emphasis == 0 else f"{self.label}-{words.get(self.emphasis, f'{self.emphasis:g}')}"

    def settings(self) -> dict[str, str]:
        """Network, emphasis and tiles."""
        return {
            "network": self.stage.settings.model,
            "weights_step": self.stage.notes.get("step", "untrained"),
            "emphasis": f"{self.emphasis:g}",
            "tile_voxel": str(self.tile),
        }

    @torch.no_grad()
    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Fuse a (MRI) with b (PET)."""
        multiple = self.stage.settings.multiple
        pair = torch.stack((a, b))[None]
        pair = padded_to(pair, (multiple,) * 3)
        tile = _tile_shape(pair.shape[2:], self.tile, multiple)
        one = tile == tuple(pair.shape[2:])
        fused = self._apply(pair.to(self.device)).cpu() if one else self._tiled(pair, tile)
        z, y, x = a.shape
        return fused[0, 0, :z, :y, :x].clamp(0, 1).contiguous()

    def needed_bytes(self, shape: Shape) -> int:
        """One tile in the network, for which a GPU has memory of its own, and the whole that is put together."""
        multiple = self.stage.settings.multiple
        padded = [-(-size // multiple) * multiple for size in shape]
        tile = _tile_shape(torch.Size(padded), self.tile, multiple)
        whole = PAIR_BYTES if tile == tuple(padded) else TILED_BYTES
        running = 0 if self.device.type == "cuda" else RUNNING_BYTES * math.prod(tile)
        return whole * math.prod(padded) + running

    def _apply(self, pair: Tensor) -> Tensor:
        return apply_fusion_model(self.stage.model, pair[:, :1], pair[:, 1:], self.emphasis)

    def _tiled(self, pair: Tensor, tile: Shape) -> Tensor:
        multiple = self.stage.settings.multiple
        # MONAI takes the overlap as a share of the tile and rounds the step down; half a voxel more keeps it exact.
        overlap = [_overlap(size, part, multiple) for size, part in zip(pair.shape[2:], tile, strict=True)]
        fused = sliding_window_inference(
            pair, tile, 1, self._apply, overlap, roi_weight_map=_weights(tile), sw_device=self.device, device="cpu"
        )
        return torch.as_tensor(fused)


def named_network(
    name: str = DEFAULT_NETWORK, emphasis: str = "balanced", device: torch.device | None = None
) -> NetworkFusion:
    """Make the method of shipped weights, or of a weight file; `emphasis` is balanced or detail.

    Raises InputError for an unknown name or emphasis, WeightsError where shipped weights are not what was packed.
    """
    if emphasis not in EMPHASES:
        raise InputError(f"the emphasis is one of {', '.join(EMPHASES)}, got '{emphasis}'")
    own = Path(name).is_file()
    path = Path(name) if own else shipped_fusion_path(name)
    if not own:
        check_shipped(path)
    device = device or torch.device("cpu")
    stage = _loaded(path, str(device), path.stat().st_mtime_ns if path.is_file() else 0)
    return NetworkFusion(stage, EMPHASES[emphasis], device=device, label="network" if own else name)


@lru_cache(maxsize=4)
def _loaded(path: Path, device: str, _changed: int) -> FusionStage:
    return load_fusion_stage(path, device)


def _tile_shape(shape: torch.Size, largest: int, multiple: int) -> Shape:
    """Share each axis evenly among as few tiles as the largest allows."""
    z, y, x = (_tile_size(size, largest, multiple) for size in shape)
    return z, y, x


def _tile_size(size: int, largest: int, multiple: int) -> int:
    largest = max(largest // multiple, 1) * multiple
    if size <= largest:
        return size
    overlap = -(-OVERLAP // multiple) * multiple
    count = -(-(size - overlap) // max(largest - overlap, multiple))
    return -(-(size + (count - 1) * overlap) // (count * multiple)) * multiple


def _weights(tile: Shape) -> Tensor:
    """Gaussian weights (z, y, x) of a tile's voxels, sd a twelfth of each edge.

    MONAI's own lifts all weights to a thousandth of the largest: in the volume's edges and corners, where all tiles'
    weights are small, it would mix in what a tile knows least. The factor puts that floor out of reach.
    """
    z, y, x = (torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 12)) ** 2) for n in tile)
    return z[:, None, None] * y[:, None] * x * 1e25


def _overlap(size: int, tile: int, multiple: int) -> float:
    """Share of a tile that the next one covers; the last one is moved back to the end, which is a multiple too."""
    if size == tile:
        return 0.0
    stride = max(tile - -(-OVERLAP // multiple) * multiple, multiple)
    return 1 - (stride + 0.5) / tile


IN_PLANE = (1, 2)
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")

# Methods that need no weights: a new one is one file and one line here.
PLAIN_FUSION_METHODS: Mapping[str, Callable[[], FusionMethod]] = {
    "average": Average,
    "maximum": Maximum,
    "laplacian": LaplacianPyramid,
    "wavelet": WaveletFusion,
    "laplacian-2d": lambda: LaplacianPyramid(axes=IN_PLANE),
    "wavelet-2d": lambda: WaveletFusion(axes=IN_PLANE),
}


def fusion_method_names() -> tuple[str, ...]:
    """List every name that `named_fusion_method` knows: the plain methods first, then the shipped networks."""
    return (*PLAIN_FUSION_METHODS, *_network_names())


def default_fusion_method_name() -> str:
    """Name the method that is used where none is asked for: the first shipped network, or `laplacian` without any."""
    return next(iter(_network_names()), "laplacian")


def named_fusion_method(name: str, emphasis: str | None = None, device: torch.device | None = None) -> FusionMethod:
    """Make a method from its name, or from a file of fusion weights; networks run on `device` (None: the CPU).

    `emphasis` is for networks: `balanced` (None is that too) or `detail`. Raises InputError for an unknown name and for
    an emphasis that the method does not have, WeightsError for weights that cannot be used.
    """
    if name in PLAIN_FUSION_METHODS:
        if emphasis is not None:
            raise InputError(f"the method '{name}' has no emphasis: leave --emphasis out, or choose a network")
        return PLAIN_FUSION_METHODS[name]()
    if name not in _network_names() and not name.endswith(WEIGHT_SUFFIXES):
        names = ", ".join(fusion_method_names())
        raise InputError(f"unknown fusion method '{name}', expected one of {names}, or a file of weights")

    return named_network(name, emphasis or "balanced", device)


def _network_names() -> tuple[str, ...]:
    """Shipped networks whose weights are there."""
    return tuple(name for name in shipped_fusion_names() if shipped_fusion_path(name).is_file())
