"""From memberships to intensities: tissues that cover one another, and soft random texture."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from crossalign.simulation.random_fields import apply_separable, linear_matrix, normal
from crossalign.types import Shape

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Tissues:
    """Intensities of ellipsoids (b, k), the background, the structure's periphery, and its capsule's excess (b,)."""

    background: Tensor
    outer: Tensor
    structure: Tensor
    capsule: Tensor
    inner: Tensor


def render_tissues(membership: Tensor, tissues: Tissues) -> Tensor:
    """Turn memberships before clamping (b, k, n) into intensities (b, n); clamps `membership` in place."""
    count = tissues.outer.shape[1]
    rim = (1 - (membership[:, count] - 0.5).abs()).clamp_(min=0)
    membership.clamp_(0, 1)
    image = tissues.background[:, None].expand(-1, membership.shape[-1]).contiguous()
    for k in range(count):
        image.lerp_(tissues.outer[:, k, None].expand_as(image), membership[:, k])
    structure = tissues.structure[:, None].expand(-1, membership.shape[-1]).contiguous()
    for k in range(tissues.inner.shape[1]):
        structure.lerp_(tissues.inner[:, k, None].expand_as(structure), membership[:, count + 1 + k])
    image.lerp_(structure, membership[:, count])
    return image.addcmul_(rim, tissues.capsule[:, None].expand_as(rim))


def texture(shape: Shape, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Make a soft random factor near 1 (b, 1, z, y, x) with marks of about an eighth and a thirtieth of the grid."""
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
