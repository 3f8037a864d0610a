"""Fusion by a trained network in overlapping tiles, and every fusion method by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from crossalign.arguments import checked
from crossalign.errors import InputError
from crossalign.fusion.classical import Average, LaplacianPyramid, Maximum, WaveletFusion
from crossalign.fusion.emphasis import (
    AUTO,
    DetailChoice,
    check_detail,
    choose_detail,
    detail_of,
    detail_settings,
    emphasised_name,
)
from crossalign.fusion.networks.compact import DCFBCompact
from crossalign.fusion.networks.dcfb import padded_to
from crossalign.fusion.networks.model_files import FUSION, FusionModel, fused_by, load_fusion_model, run_fusion_network
from crossalign.fusion.networks.unrolled import (
    FROM_AVERAGE,
    FROM_GEOMETRIC_MEAN,
    Schedule,
    geometric_start,
    optimise_scores,
)
from crossalign.fusion.networks.unrolled_by_slabs import optimise_scores_by_slabs
from crossalign.fusion.result import FusionMethod
from crossalign.fusion.tiles import LARGEST_TILE, OVERLAP, tile_overlap, tile_shape, tile_weights
from crossalign.models.model_file import WEIGHT_SUFFIXES
from crossalign.models.pretrained import shipped_names, shipped_path
from crossalign.types import Scan, Shape, Volume

DEFAULT_NETWORK = "dcfb-compact"
UNROLLED, GEOMETRIC = "unrolled-ssim", "unrolled-geometric"
DEFAULT_METHOD = DEFAULT_NETWORK
# Of memory, a voxel, as measured: of the tile that goes through the compact network, and of the whole beside it.
RUNNING_BYTES, PAIR_BYTES, TILED_BYTES = 330, 12, 24
UNROLLED_BYTES, GEOMETRIC_BYTES = 190, 48


@dataclass(frozen=True, eq=False)
class NetworkFusion(FusionMethod):
    """A trained network, and how much detail is wanted, from -0.3 (nearer to the PET) over 0 (balanced) to 1 (detail).

    Without a detail it is chosen for each pair by what it retains of both scans (`choose_detail`), and `choice` says
    which it was. The paper's network has no such choice.
    Volumes longer than `tile` voxels on an axis are fused by tiles that overlap by 64 voxels or more, blended with a
    Gaussian weight; tiles start at multiples of the network's windows, so that windows lie as in the whole volume.
    """

    model: FusionModel
    detail: float | None = None
    tile: int = LARGEST_TILE
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    label: str = DEFAULT_NETWORK
    choice: DetailChoice | None = None

    def __post_init__(self) -> None:
        check_detail(self.detail)
        if self.tile < 2 * OVERLAP:
            raise InputError(f"tiles must be {2 * OVERLAP} voxels or more, got {self.tile}")

    @property
    def name(self) -> str:
        """The weights' name, with the emphasis where it is not the default."""
        return emphasised_name(self.label, None if self.choice else self.detail, None)

    def settings(self) -> dict[str, str]:
        """Network, detail and tiles."""
        return {
            "network": self.model.settings.network,
            "weights_step": self.model.notes.get("step", "untrained"),
            **(detail_settings(self.detail, self.choice) if self._has_detail() else {}),
            "tile_voxel": str(self.tile),
        }

    def for_pair(self, a: Scan, b: Scan) -> NetworkFusion:
        """Return the method with the detail for this pair."""
        if self.detail is not None or not self._has_detail():
            return self
        choice = choose_detail(a, b, self._fused_blocks)
        return replace(self, detail=choice.detail, choice=choice)

    def notes(self) -> tuple[str, ...]:
        """Say where the fused volume is estimated to retain less than the plain average."""
        return () if self.choice is None else self.choice.notes()

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Fuse a (MRI) with b (PET)."""
        detail = self.for_pair(a, b).detail
        return self._fused(a, b, 0.0 if detail is None else detail)

    @torch.no_grad()
    def _fused_blocks(self, a: Volume, b: Volume, detail: float) -> Volume:
        """Fuse blocks (n, 1, z, y, x): many small ones together, a single one as a volume."""
        if len(a) == 1:
            return self._fused(a[0, 0], b[0, 0], detail)[None, None]
        details = torch.full((len(a),), detail, device=self.device)
        return fused_by(self.model.network, a.to(self.device), b.to(self.device), details).cpu()

    def _has_detail(self) -> bool:
        return isinstance(self.model.network, DCFBCompact)

    @torch.no_grad()
    def _fused(self, a: Scan, b: Scan, detail: float) -> Scan:
        multiple = self.model.settings.multiple
        pair = padded_to(torch.stack((a, b))[None], (multiple,) * 3)
        tile = tile_shape(pair.shape[2:], self.tile, multiple)
        whole = tile == tuple(pair.shape[2:])
        run = partial(self._run, detail=detail)
        fused = run(pair.to(self.device)).cpu() if whole else self._tiled(pair, tile, run)
        z, y, x = a.shape
        return fused[0, 0, :z, :y, :x].clamp(0, 1).contiguous()

    def needed_bytes(self, shape: Shape) -> int:
        """One tile in the network, for which a GPU has memory of its own, and the whole volumes beside it."""
        multiple = self.model.settings.multiple
        padded = [-(-size // multiple) * multiple for size in shape]
        tile = tile_shape(torch.Size(padded), self.tile, multiple)
        whole = PAIR_BYTES if tile == tuple(padded) else TILED_BYTES
        running = 0 if self.device.type == "cuda" else RUNNING_BYTES * math.prod(tile)
        return whole * math.prod(padded) + running

    def _run(self, pair: Tensor, detail: float) -> Tensor:
        return run_fusion_network(self.model.network, pair[:, :1], pair[:, 1:], detail)

    def _tiled(self, pair: Tensor, tile: Shape, run: Callable[[Tensor], Tensor]) -> Tensor:
        from monai.inferers.utils import sliding_window_inference  # seconds, which only large volumes should cost

        multiple = self.model.settings.multiple
        # MONAI takes the overlap as a fraction of the tile and rounds the step down; half a voxel more makes it exact.
        overlap = [tile_overlap(size, part, multiple) for size, part in zip(pair.shape[2:], tile, strict=True)]
        fused = sliding_window_inference(
            pair, tile, 1, run, overlap, roi_weight_map=tile_weights(tile), sw_device=self.device, device="cpu"
        )
        return torch.as_tensor(fused)


@lru_cache(maxsize=4)
def _loaded(path: Path, device: str, _changed: int) -> FusionModel:
    return load_fusion_model(path, device)


# Where the unrolled optimiser begins, and its steps, by name. From the average it hides uptake that the MRI does not
# show; from the geometric mean uptake stays above its surroundings.
SCHEDULES: Mapping[str, Schedule] = {UNROLLED: FROM_AVERAGE, GEOMETRIC: FROM_GEOMETRIC_MEAN}


@dataclass(frozen=True)
class UnrolledOptimiser(FusionMethod):
    """An unrolled optimiser of SSIM and Qabf, and how much detail is wanted, as for a network.

    `label` is one of SCHEDULES. It has no weights, and scores best in what it optimises.
    """

    label: str = GEOMETRIC
    detail: float | None = 0.0
    choice: DetailChoice | None = None

    def __post_init__(self) -> None:
        check_detail(self.detail)
        if self.label not in SCHEDULES:
            raise InputError(f"the unrolled optimiser is one of {', '.join(SCHEDULES)}, got '{self.label}'")

    @property
    def name(self) -> str:
        """Short name, with the emphasis where it is not the default."""
        return emphasised_name(self.label, None if self.choice else self.detail, 0.0)

    def settings(self) -> dict[str, str]:
        """How much detail is wanted."""
        return detail_settings(self.detail, self.choice)

    def for_pair(self, a: Scan, b: Scan) -> UnrolledOptimiser:
        """Return the method with the detail for this pair."""
        if self.detail is not None:
            return self
        choice = choose_detail(a, b, self._fused_blocks)
        return replace(self, detail=choice.detail, choice=choice)

    def notes(self) -> tuple[str, ...]:
        """Say where the fused volume is estimated to retain less than the plain average."""
        return () if self.choice is None else self.choice.notes()

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Fuse a (MRI) with b (PET)."""
        detail = self.for_pair(a, b).detail
        return self._fused(a, b, 0.0 if detail is None else detail)

    def _fused_blocks(self, a: Volume, b: Volume, detail: float) -> Volume:
        if len(a) == 1:
            return self._fused(a[0, 0], b[0, 0], detail)[None, None]
        return optimise_scores(a, b, detail, SCHEDULES[self.label])

    def _fused(self, a: Scan, b: Scan, detail: float) -> Scan:
        return optimise_scores_by_slabs(a[None, None], b[None, None], detail, SCHEDULES[self.label])[0, 0]

    def needed_bytes(self, shape: Shape) -> int:
        """Statistics of the pair and gradients of both scores."""
        return UNROLLED_BYTES * math.prod(shape)


@dataclass(frozen=True)
class GeometricMean(FusionMethod):
    """Weighted geometric mean of both inputs' local means, with most of both inputs' details.

    Uptake stays above its surroundings, and the anatomy shows everywhere, darker than in the MRI.
    """

    name = "geometric-mean"

    def fuse(self, a: Scan, b: Scan) -> Scan:
        """Fuse a (MRI) with b (PET)."""
        return geometric_start(a[None, None], b[None, None])[0, 0]

    def needed_bytes(self, shape: Shape) -> int:
        """Both local means, their logarithms, and the result."""
        return GEOMETRIC_BYTES * math.prod(shape)


IN_PLANE = (1, 2)

# Methods that need no weights: a new one is one class and one line here.
PLAIN_FUSION_METHODS: Mapping[str, Callable[[], FusionMethod]] = {
    "average": Average,
    "maximum": Maximum,
    "laplacian": LaplacianPyramid,
    "wavelet": WaveletFusion,
    "laplacian-2d": lambda: LaplacianPyramid(axes=IN_PLANE),
    "wavelet-2d": lambda: WaveletFusion(axes=IN_PLANE),
    "geometric-mean": GeometricMean,
    UNROLLED: lambda: UnrolledOptimiser(UNROLLED),
    GEOMETRIC: UnrolledOptimiser,
}


def fusion_method_names() -> tuple[str, ...]:
    """List every name that `named_fusion_method` knows: the plain methods first, then the shipped networks."""
    return (*PLAIN_FUSION_METHODS, *shipped_names(FUSION.name))


def default_fusion_method_name() -> str:
    """Name the default method."""
    return DEFAULT_METHOD


@checked("name", "emphasis", "device")
def named_fusion_method(name: str, emphasis: str | None = None, device: torch.device | None = None) -> FusionMethod:
    """Make a method from its name, or from a file of fusion weights; networks run on `device` (None: the CPU).

    `emphasis` is for networks, `unrolled-ssim` and `unrolled-geometric`: `auto` (chosen for each pair; of networks None
    is that too), `balanced` (of the unrolled optimisers None is that too) or `detail`.
    Raises InputError for an unknown name and for an emphasis that the method does not have, WeightsError for weights
    that cannot be used.
    """
    if name in SCHEDULES:
        return UnrolledOptimiser(name, detail_of("balanced" if emphasis is None else emphasis))
    if name in PLAIN_FUSION_METHODS:
        if emphasis is not None:
            raise InputError(
                f"the method '{name}' has no emphasis: leave --emphasis out, or choose a network, {UNROLLED} or "
                f"{GEOMETRIC}"
            )
        return PLAIN_FUSION_METHODS[name]()
    shipped = name in shipped_names(FUSION.name)
    if not shipped and not name.endswith(WEIGHT_SUFFIXES):
        names = ", ".join(fusion_method_names())
        raise InputError(f"unknown fusion method '{name}', expected one of {names}, or a file of weights")
    detail = detail_of(AUTO if emphasis is None else emphasis)
    path, device = shipped_path(name) or Path(name), device or torch.device("cpu")
    model = _loaded(path, str(device), path.stat().st_mtime_ns if path.is_file() else 0)
    return NetworkFusion(model, detail, device=device, label=name if shipped else "network")
