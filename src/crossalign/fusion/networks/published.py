"""Checkpoints of the fusion paper's authors: the layers that our network has too, under our names.

The names are those of their public program (DC2Fusion), and so are the shapes. Their network is not ours: its softmax
has no effect, its offsets come from a wider layer, its 7^3 convolution groups the channels of one map, it lacks our
position biases. So a checkpoint initialises a training, and does not reproduce their results.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from crossalign.errors import WeightsError
from crossalign.fusion.networks.dcfb import DCFB
from crossalign.fusion.networks.settings import DCFBSettings
from crossalign.models.published import KIND, read_state_dict
from crossalign.models.tensor_files import check_finite

Conversion = Callable[[Tensor], Tensor]


def _same(value: Tensor) -> Tensor:
    return value


def _pointwise(value: Tensor) -> Tensor:
    """Return a linear layer's weight (out, in) as that of a 1^3 convolution; biases stay."""
    return value[..., None, None, None] if value.dim() == 2 else value


def _swapped(value: Tensor) -> Tensor:
    """As `_pointwise`, with the two halves of the input swapped: theirs has the convolution's branch first."""
    return _pointwise(value.roll(value.shape[1] // 2, dims=1) if value.dim() == 2 else value)


# One of their layers may be several of ours: their block has one LayerNorm where ours has three.
BLOCK_LAYERS: Mapping[str, tuple[tuple[str, ...], Conversion]] = {
    "norm1": (("norm_x.norm", "norm_other.norm", "mlp.0.norm"), _same),
    "cross_attn.q": (("attention.query",), _same),
    "cross_attn.k": (("attention.key",), _same),
    "cross_attn.v": (("attention.value",), _same),
    "channel_interaction.1": (("channel_gate.squeeze",), _same),
    "channel_interaction.4": (("channel_gate.excite",), _same),
    "spatial_interaction.0": (("spatial_gate.0",), _same),
    "spatial_interaction.3": (("spatial_gate.2",), _same),
    "proj": (("blend",), _swapped),
    "mlp.fc1": (("mlp.1",), _pointwise),
    "mlp.fc2": (("mlp.3",), _pointwise),
}
# Layers of their block that ours has not; `cross_attn.proj` has no effect in theirs, a key's bias none in a softmax.
BLOCK_ONLY_THEIRS = (
    *("cross_attn.proj", "cross_attn.k.bias", "conv_offset.0", "conv_offset.1.norm", "conv_offset.3", "proj_q"),
    *("projection", "dwconv3x3.0", "dwconv3x3.1", "channel_interaction.2.norm", "spatial_interaction.1.norm"),
)
LAYERS: Mapping[str, tuple[str, Conversion]] = {
    "swin.patch_embed.proj": ("embed", _same),
    "swin.norm": ("middle_norm.norm", _same),
    "swin.norm2": ("head_norm.norm", _same),
    "swin.reverse_patch_embedding": ("head_up", _same),
    "out_conv": ("head_out", _same),
}
ONLY_THEIRS = ("swin.patch_embed.norm", "swin.concat_back_dim.0")  # the second is built there, and never used
PATTERNS: tuple[tuple[str, str, Conversion], ...] = (
    (r"swin\.layers\.(\d+)\.downsample\.down_conv", "merges.{0}.linear", _same),
    (r"swin\.layers\.(\d+)\.downsample\.norm", "merges.{0}.norm.norm", _same),
    (r"swin\.up_layers\.(\d+)\.downsample\.up_conv", "expands.{0}.linear", _same),
    (r"swin\.up_layers\.(\d+)\.downsample\.norm", "expands.{0}.norm.norm", _same),
)
BLOCK = re.compile(r"swin\.(layers|up_layers)\.(\d+)\.blocks\.(\d+)\.(.+)")
SKIP = re.compile(r"swin\.concat_back_dim\.(\d+)")


@dataclass(frozen=True, eq=False)
class OriginalFusion:
    """Our network in eval mode with a checkpoint's weights: which names of theirs were used, and which were not.

    `fresh` are the weights of ours that the checkpoint does not have: as drawn, position biases 0.
    """

    model: DCFB
    used: tuple[str, ...]
    unused: tuple[str, ...]
    fresh: tuple[str, ...]


def load_original_fusion_checkpoint(
    path: str | os.PathLike[str], settings: DCFBSettings | None = None, seed: int = 0
) -> OriginalFusion:
    """Read a state dict of the authors' DC2Fusion code into our `dcfb`, layer by layer where both have one.

    `.pth` files are read with `weights_only=True`, safetensors as they are; a `module.` prefix is dropped. Weights
    without a counterpart are drawn from `seed`. Raises WeightsError for a file that is no such checkpoint: a name that
    their network does not have, a shape that does not fit, or a layer missing that both have.
    """
    path = Path(path)
    state = read_state_dict(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DCFB(settings)
    ours = {name: torch.zeros_like(v) if name.endswith("position") else v for name, v in model.state_dict().items()}
    converted, used = dict[str, Tensor](), []
    for name, value in state.items():
        targets, convert = _targets(path, name)
        for target in targets:
            converted[target] = _fitting(path, name, convert(value), ours.get(target))
        used += [name] if targets else []
    missing = sorted(_expected(model) - set(converted))
    if missing:
        raise WeightsError(f"{path.name}: lacks what would become {missing[0]} ({len(missing)} such): not this network")
    model.load_state_dict({**ours, **converted})
    check_finite(converted, path, KIND)
    unused, fresh = (tuple(n for n in names if n not in known) for names, known in ((state, used), (ours, converted)))
    return OriginalFusion(model.eval(), tuple(used), unused, fresh)


def _targets(path: Path, name: str) -> tuple[tuple[str, ...], Conversion]:
    """Return our names of one of theirs, none where we have no such layer. Raises WeightsError."""
    layer, _, leaf = name.rpartition(".")
    if layer in LAYERS:
        target, convert = LAYERS[layer]
        return (f"{target}.{leaf}",), convert
    for pattern, target, convert in PATTERNS:
        if found := re.fullmatch(pattern, layer):
            return (f"{target.format(*found.groups())}.{leaf}",), convert
    if layer in ONLY_THEIRS:
        return (), _same
    if found := SKIP.fullmatch(layer):
        return (f"skips.{int(found[1]) - 1}.{leaf}",), _pointwise
    if found := BLOCK.fullmatch(name):
        side = "encoder" if found[1] == "layers" else "decoder"
        inner, _, leaf = found[4].rpartition(".")
        if inner in BLOCK_ONLY_THEIRS or found[4] in BLOCK_ONLY_THEIRS:
            return (), _same
        if inner in BLOCK_LAYERS:
            targets, convert = BLOCK_LAYERS[inner]
            return tuple(f"{side}.{found[2]}.blocks.{found[3]}.{target}.{leaf}" for target in targets), convert
    raise WeightsError(f"{path.name}: holds '{name}', which is no layer of DC2Fusion")


def _fitting(path: Path, name: str, value: Tensor, ours: Tensor | None) -> Tensor:
    if ours is None or ours.shape != value.shape:
        expected = "no such layer" if ours is None else tuple(ours.shape)
        raise WeightsError(f"{path.name}: '{name}' has shape {tuple(value.shape)}, expected {expected}")
    return value


def _expected(model: DCFB) -> set[str]:
    """Names of our weights that a complete checkpoint has too."""
    parts = {part for targets, _ in BLOCK_LAYERS.values() for part in targets}
    outer = ("embed.", "merges.", "expands.", "skips.", "middle_norm.", "head_")

    def has(name: str) -> bool:
        inner = name.rsplit(".blocks.", maxsplit=1)[-1].partition(".")[2].rpartition(".")[0]
        return name.startswith(outer) or (".blocks." in name and inner in parts)

    return {name for name in model.state_dict() if has(name)}
