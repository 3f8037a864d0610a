"""Checkpoints of the fusion paper's authors: the layers that our network has too, under our names.

The names are those of their public program (DC2Fusion), and so are the shapes. Their network is not ours: its softmax
has no effect, its offsets come from a wider layer, its 7^3 convolution groups the channels of one map, it lacks our
position biases. So a checkpoint initialises a training, and does not reproduce their results.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from crossalign.errors import WeightsError
from crossalign.fusion.networks.dcfb import DCFB
from crossalign.fusion.networks.settings import DCFBSettings
from crossalign.models.published import STATE_DICT, read_state_dict
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


# Our layers and theirs; their block has one LayerNorm where ours has three.
BLOCK_LAYERS: tuple[tuple[str, str, Conversion], ...] = (
    (r"(?:norm_x|norm_other|mlp\.0)\.norm", "norm1", _same),
    (r"attention\.query", "cross_attn.q", _same),
    (r"attention\.key", "cross_attn.k", _same),
    (r"attention\.value", "cross_attn.v", _same),
    (r"channel_gate\.squeeze", "channel_interaction.1", _same),
    (r"channel_gate\.excite", "channel_interaction.4", _same),
    (r"spatial_gate\.0", "spatial_interaction.0", _same),
    (r"spatial_gate\.2", "spatial_interaction.3", _same),
    (r"blend", "proj", _swapped),
    (r"mlp\.1", "mlp.fc1", _pointwise),
    (r"mlp\.3", "mlp.fc2", _pointwise),
)
LAYERS: tuple[tuple[str, str, Conversion], ...] = (
    (r"embed", "swin.patch_embed.proj", _same),
    (r"middle_norm\.norm", "swin.norm", _same),
    (r"head_norm\.norm", "swin.norm2", _same),
    (r"head_up", "swin.reverse_patch_embedding", _same),
    (r"head_out", "out_conv", _same),
    (r"merges\.(\d+)\.linear", r"swin.layers.\1.downsample.down_conv", _same),
    (r"merges\.(\d+)\.norm\.norm", r"swin.layers.\1.downsample.norm", _same),
    (r"expands\.(\d+)\.linear", r"swin.up_layers.\1.downsample.up_conv", _same),
    (r"expands\.(\d+)\.norm\.norm", r"swin.up_layers.\1.downsample.norm", _same),
    *((rf"skips\.{n}", f"swin.concat_back_dim.{n + 1}", _pointwise) for n in range(6)),
    *(
        (rf"{our_part}\.(\d+)\.blocks\.(\d+)\.{ours}", rf"swin.{their_part}.\1.blocks.\2.{theirs}", conversion)
        for our_part, their_part in (("encoder", "layers"), ("decoder", "up_layers"))
        for ours, theirs, conversion in BLOCK_LAYERS
    ),
)
# Theirs alone: `cross_attn.proj` has no effect there, a key's bias none in a softmax, `concat_back_dim.0` is not used.
ONLY_THEIRS = re.compile(
    r"swin\.(patch_embed\.norm|concat_back_dim\.0)\.\w+|swin\.(up_)?layers\.\d+\.blocks\.\d+\."
    r"(cross_attn\.proj\.\w+|cross_attn\.k\.bias|(conv_offset|dwconv3x3|projection|proj_q)\..+"
    r"|(channel_interaction\.2|spatial_interaction\.1)\.norm\.\w+)"
)


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
    sources = {name: source for name in ours if (source := original_source(name)) is not None}
    missing = sorted(name for name, (theirs, _) in sources.items() if theirs not in state)
    if missing:
        raise WeightsError(f"{path.name}: lacks what would become {missing[0]} ({len(missing)} such): not this network")
    used = {theirs for theirs, _ in sources.values()}
    for name in state:
        if name not in used and ONLY_THEIRS.fullmatch(name) is None:
            raise WeightsError(f"{path.name}: holds '{name}', which is no layer of DC2Fusion of this size")
    converted = {name: convert(state[theirs]) for name, (theirs, convert) in sources.items()}
    for name, value in converted.items():
        if value.shape != ours[name].shape:
            got, expected = tuple(state[sources[name][0]].shape), tuple(ours[name].shape)
            raise WeightsError(f"{path.name}: '{sources[name][0]}' has shape {got}, expected {expected}")
    model.load_state_dict({**ours, **converted})
    check_finite(converted, path, STATE_DICT)
    unused, fresh = (tuple(n for n in names if n not in known) for names, known in ((state, used), (ours, converted)))
    return OriginalFusion(model.eval(), tuple(name for name in state if name in used), unused, fresh)


def original_source(name: str) -> tuple[str, Conversion] | None:
    """Return their name of one of our weights and how to convert it; None where they have no such layer."""
    layer, _, leaf = name.rpartition(".")
    for pattern, replacement, convert in LAYERS:
        if found := re.fullmatch(pattern, layer):
            return f"{found.expand(replacement)}.{leaf}", convert
    return None
