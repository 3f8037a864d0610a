"""Trained fusion networks: their files, and how they are run."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from crossalign.errors import WeightsError
from crossalign.fusion.networks.compact import DCFBCompact
from crossalign.fusion.networks.dcfb import DCFB
from crossalign.fusion.networks.settings import FusionStageSettings
from crossalign.fusion.networks.slabwise import fuse_by_slabs
from crossalign.input import excerpt
from crossalign.models.card import Card
from crossalign.models.model_file import ModelContents, NetworkTask, StageContents, read_model_file, save_model_file
from crossalign.models.pretrained import shipped_path
from crossalign.types import Volume

SLICES = 16  # of the twin in the plane at a time

# Parts of the names of weights in files of earlier versions, and today's.
RENAMED = {"think": "mlp", "beside": "convolution", "place_gate": "spatial_gate"}
# Settings of the compact networks of earlier versions, an unrolled optimiser.
OPTIMISER_SETTINGS = {"ssim_steps", "refinements", "climbs", "steps"}
EARLIER_PREDICTION = 4  # channels of the compact networks that took no steps

NETWORKS: dict[str, Callable[[FusionStageSettings], nn.Module]] = {
    "dcfb-compact": lambda settings: DCFBCompact(settings.compact),
    "dcfb-compact-2d": lambda settings: DCFBCompact(settings.compact, planar=True),
    "dcfb": lambda settings: DCFB(settings.dcfb),
}


@dataclass(frozen=True, eq=False)
class FusionModel:
    """A network in eval mode with its settings and card; `notes` are free text from training."""

    network: nn.Module
    settings: FusionStageSettings
    notes: Mapping[str, str] = field(default_factory=dict)
    card: Card = field(default_factory=Card)


def build_fusion_network(settings: FusionStageSettings) -> nn.Module:
    """Make an untrained network; its weights are drawn from torch's global generator."""
    return NETWORKS[settings.network](settings)


@torch.no_grad()
def run_fusion_network(network: nn.Module, a: Volume, b: Volume, detail: float) -> Volume:
    """Run a network on one pair (1, 1, z, y, x) without gradients; `detail` is for the compact networks.

    On the CPU the compact network in 3-D is run slab by slab; its twin in the plane on a few slices at a time, which
    are independent.
    """
    if not isinstance(network, DCFBCompact):
        return network(a, b)
    if a.device.type == "cpu" and not network.planar:
        return fuse_by_slabs(network, a, b, detail)
    details = a.new_full((len(a),), detail)
    slices = SLICES if network.planar else a.shape[2]
    fused = []
    for first in range(0, a.shape[2], slices):
        part = (volume[:, :, first : first + slices] for volume in (a, b))
        fused.append(network(*(one.contiguous(memory_format=torch.channels_last_3d) for one in part), details))
    return torch.cat(fused, dim=2)


def fused_by(network: nn.Module, a: Volume, b: Volume, detail: Tensor) -> Volume:
    """Run a network on pairs, with gradients; `detail` (b,) is for the compact networks."""
    return network(a, b, detail) if isinstance(network, DCFBCompact) else network(a, b)


def save_fusion_model(model: FusionModel, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a model to one file. Raises OutputError."""
    stage = StageContents(model.network.state_dict(), model.settings, model.notes)
    save_model_file(ModelContents(FUSION.name, [stage], card=model.card), path, overwrite)


def load_fusion_model(source: str | os.PathLike[str], device: torch.device | str = "cpu") -> FusionModel:
    """Load a model from a file, or by the name of one that comes in the package.

    Raises WeightsError where the file is missing, damaged, or something else.
    """
    file = read_model_file(shipped_path(str(source)) or source, FUSION.name)
    if len(file.stages) != 1:
        raise WeightsError(f"{file.path.name}: holds {len(file.stages)} fusion networks, expected one")
    ((network, settings),) = _current(file).networks(FUSION, device)
    return FusionModel(network, settings, file.stages[0].notes, file.card)


def current_name(name: str) -> str:
    """Return today's name of a weight; files of earlier versions have other ones."""
    return ".".join(RENAMED.get(part, part) for part in name.split("."))


def _current(file: ModelContents) -> ModelContents:
    """Return the contents without settings that only the compact networks of earlier versions had.

    Raises WeightsError for such a network: its weights fit none of today's.
    """
    (stage,) = file.stages
    compact, network = (stage.settings.get(name) for name in ("compact", "network"))
    network = network or stage.settings.get("model")
    if not isinstance(compact, Mapping):
        return file
    if not OPTIMISER_SETTINGS & set(compact):
        prediction = stage.tensors.get("out.weight")
        if network == "dcfb" or prediction is None or len(prediction) != EARLIER_PREDICTION:
            return file
        raise WeightsError(
            f"{file.path.name}: holds the '{excerpt(network)}' of an earlier version, which mixed both inputs without "
            f"steps towards SSIM and Qabf: take the one that comes with this version (`{excerpt(network)}`), or train "
            "it again with `crossalign train-fusion`"
        )
    if network != "dcfb":
        raise WeightsError(
            f"{file.path.name}: holds the '{excerpt(network)}' of an earlier version, an unrolled optimiser of SSIM "
            "and Qabf: that is now the fusion method `unrolled-ssim`, which needs no file; `dcfb-compact` is a trained "
            "network today"
        )
    others = {name: value for name, value in compact.items() if name not in OPTIMISER_SETTINGS}
    return replace(file, stages=[replace(stage, settings={**stage.settings, "compact": others})])


FUSION = NetworkTask("fusion", FusionStageSettings, build_fusion_network, current_name)
