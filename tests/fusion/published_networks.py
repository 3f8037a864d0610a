"""The names and shapes of the fusion paper's network, from its public description: a state dict, no computation."""

import torch
from torch import Tensor

from crossalign.fusion.networks.settings import DCFBSettings


def original_fusion_state(settings: DCFBSettings, seed: int = 0) -> dict[str, Tensor]:
    """A state dict with the authors' names, every value drawn."""
    shapes: dict[str, tuple[int, ...]] = {}
    width, last = settings.channels, len(settings.depths) - 1

    def layer(name: str, *weight: int, bias: int | None = None) -> None:
        shapes[f"{name}.weight"] = weight
        if bias != 0:
            shapes[f"{name}.bias"] = (weight[0] if bias is None else bias,)

    layer("swin.patch_embed.proj", width, 1, 4, 4, 4)
    for level, depth in enumerate(settings.depths):
        wide = width << level
        for side, number in (("layers", level), ("up_layers", last - level)):
            for block in range(depth):
                _block(layer, f"swin.{side}.{number}.blocks.{block}", wide)
                shapes[f"swin.{side}.{number}.blocks.{block}.dwconv3x3.1.running_mean"] = (wide,)
        if level < last:
            layer(f"swin.layers.{level}.downsample.down_conv", 2 * wide, wide, 2, 2, 2)
            layer(f"swin.layers.{level}.downsample.norm", 2 * wide)
        if level > 0:
            layer(f"swin.up_layers.{last - level}.downsample.up_conv", wide, wide // 2, 2, 2, 2, bias=wide // 2)
            layer(f"swin.up_layers.{last - level}.downsample.norm", wide // 2)
        layer(f"swin.concat_back_dim.{last - level}", wide, 2 * wide)
    layer("swin.norm", width << last)
    layer("swin.norm2", 2 * width)
    layer("swin.reverse_patch_embedding", 2 * width, width // 2, 4, 4, 4, bias=width // 2)
    layer("out_conv", 2, width // 2, 3, 3, 3)
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _block(layer, name: str, wide: int) -> None:
    layer(f"{name}.norm1", wide)
    for part in ("q", "k", "v", "proj"):
        layer(f"{name}.cross_attn.{part}", wide, wide)
    layer(f"{name}.conv_offset.0", 2 * wide, 1, 3, 3, 3)
    layer(f"{name}.conv_offset.1.norm", 2 * wide)
    layer(f"{name}.conv_offset.3", 3, 2 * wide, 1, 1, 1, bias=0)
    layer(f"{name}.proj_q", 2 * wide, 2 * wide, 1, 1, 1)
    layer(f"{name}.mlp.fc1", 4 * wide, wide)
    layer(f"{name}.mlp.fc2", wide, 4 * wide)
    layer(f"{name}.projection", wide, wide, 1, 1, 1)
    layer(f"{name}.dwconv3x3.0", wide, 2, 7, 7, 7)
    layer(f"{name}.dwconv3x3.1", wide)
    inner = wide // 8
    layer(f"{name}.channel_interaction.1", inner, wide, 1, 1, 1)
    layer(f"{name}.channel_interaction.2.norm", inner)
    layer(f"{name}.channel_interaction.4", wide, inner, 1, 1, 1)
    layer(f"{name}.spatial_interaction.0", inner, wide, 1, 1, 1)
    layer(f"{name}.spatial_interaction.1.norm", inner)
    layer(f"{name}.spatial_interaction.3", 1, inner, 1, 1, 1)
    layer(f"{name}.proj", wide, 2 * wide)
