"""From memberships to intensities: tissues painted over one another, and soft random texture."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from crossalign.simulation.fields import apply_separable, linear_matrix, normal, uniform
from crossalign.simulation.pelvis.anatomy import Anatomy
from crossalign.simulation.settings import Range
from crossalign.types import Shape

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Tissues:
    """Intensity of each body (b, k), of the background, the gland's periphery and what its capsule adds (b,)."""

    background: Tensor
    outer: Tensor
    gland: Tensor
    capsule: Tensor
    inner: Tensor


def draw_tissues(
    means: Mapping[str, Range],
    anatomy: Anatomy,
    jitter: Tensor,
    randomised: Tensor,
    zones: Range,
    generator: torch.Generator,
) -> Tissues:
    """Draw intensities: U(range) of the table plus N(0, jitter (b,)), or anything in 0..1 where `randomised` (b,).

    What lies inside the gland differs from it by a share U(zones) of the table's difference. Bodies of one name share
    one intensity. `loose0..` and `nodule0..` fall back to the table's `loose` and `nodule`.
    """
    outer, inner = anatomy.outer_names, anatomy.inner_names
    drawn: dict[str, Tensor] = {}
    for name in ("background", "gland", *outer, *inner):
        if name not in drawn:
            table = means[name] if name in means else means[name.rstrip("0123456789")]
            usual = uniform(table, (len(jitter),), generator) + jitter * torch.randn(len(jitter), generator=generator)
            anything = uniform((0.08, 1.0), (len(jitter),), generator)
            drawn[name] = torch.where(randomised, anything, usual.clamp(0.0, 1.6))
    capsule = uniform(means["capsule"], (len(jitter),), generator)
    rows = [torch.stack([drawn[name] for name in names], -1) for names in (outer, inner)]
    gland, share = drawn["gland"], uniform(zones, (len(jitter), 1), generator)
    inner_rows = gland[:, None] + share * (rows[1] - gland[:, None])
    return Tissues(drawn["background"], rows[0], gland, capsule * share[:, 0], inner_rows)


def paint(levels: Tensor, tissues: Tissues) -> Tensor:
    """Paint memberships before clamping (b, k, n) into intensities (b, n); clamps `levels` in place."""
    count = tissues.outer.shape[1]
    rim = (1 - (levels[:, count] - 0.5).abs()).clamp_(min=0)
    levels.clamp_(0, 1)
    image = tissues.background[:, None].expand(-1, levels.shape[-1]).contiguous()
    for k in range(count):
        image.lerp_(tissues.outer[:, k, None].expand_as(image), levels[:, k])
    gland = tissues.gland[:, None].expand(-1, levels.shape[-1]).contiguous()
    for k in range(tissues.inner.shape[1]):
        gland.lerp_(tissues.inner[:, k, None].expand_as(gland), levels[:, count + 1 + k])
    image.lerp_(gland, levels[:, count])
    return image.addcmul_(rim, tissues.capsule[:, None].expand_as(rim))


def texture(shape: Shape, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Make a soft random factor near 1 (b, 1, z, y, x) with marks of about an eighth and a thirtieth of the lattice."""
    total = torch.zeros(len(strength), 1, *shape, device=strength.device)
    for coarse, weight in ((8, 1.0), (22, 0.6)):
        noise = normal((len(strength), 1, coarse, coarse, coarse), generator)
        noise *= (weight * strength)[:, None, None, None, None]
        total += apply_separable(noise, *[linear_matrix(size, coarse).to(strength.device) for size in shape])
    return total.add_(1.0).clamp_(min=0.0)


def to_device(value: T, device: torch.device) -> T:
    """Move every tensor of a (nested) frozen dataclass to the device."""
    moved: dict[str, Any] = {}
    for item in fields(value):  # type: ignore[arg-type]
        content = getattr(value, item.name)
        if isinstance(content, Tensor):
            moved[item.name] = content.to(device)
        elif hasattr(content, "__dataclass_fields__"):
            moved[item.name] = to_device(content, device)
    return replace(value, **moved)  # type: ignore[type-var]
