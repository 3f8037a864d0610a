"""Networks by name: adding one is a line here. The networks' own modules are imported when one is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from crossalign.errors import InputError

if TYPE_CHECKING:
    from torch import nn

MOST_VOXELS = 2**24  # of a crop in all: 256^3
Builder = Callable[[tuple[int, int, int], float], "nn.Module"]


@dataclass(frozen=True)
class NetworkEntry:
    """How to build a network from its crop's shape (z, y, x) and spacing in mm, and which crops it can see.

    `least_voxels` is the smallest size along each axis, which must be a multiple of `multiple`. `matches_tokens` says
    that it can be trained with the loss `guided`; `build_with_mask` builds it for a moving crop of two channels, if
    it can have one; a stand-in is known by name and parameter count alone.
    """

    build: Builder
    least_voxels: int = 4
    multiple: int = 1
    matches_tokens: bool = False
    stand_in: bool = False
    build_with_mask: Builder | None = None


def _module(name: str) -> Any:
    return import_module(f"crossalign.networks.{name}")


def _correspondence(layers: int = 2) -> NetworkEntry:
    def build(channels: int) -> Builder:
        return lambda shape, mm: _module("correspondence").CorrespondenceReg(shape, mm, layers, channels)

    return NetworkEntry(build(1), 8, 4, matches_tokens=True, build_with_mask=build(2))


NETWORKS: dict[str, NetworkEntry] = {
    "attention-reg": NetworkEntry(lambda shape, _: _module("attention_reg").AttentionReg(shape, attention=True)),
    "feature-reg": NetworkEntry(lambda shape, _: _module("attention_reg").AttentionReg(shape, attention=False)),
    "correspondence": _correspondence(),
    # Ablations of it: another head, and no, one or four layers of cross-attention.
    "correspondence-fc": NetworkEntry(lambda shape, mm: _module("tokens").TokenRegression(shape, mm), 8, 4),
    "correspondence-plain": _correspondence(layers=0),
    "correspondence-short": _correspondence(layers=1),
    "correspondence-deep": _correspondence(layers=4),
    "msreg": NetworkEntry(lambda shape, _: _module("msreg").MSReg(shape), 8),
    "msreg-published": NetworkEntry(lambda shape, _: _module("msreg").MSReg(shape, unused_layers=True), 8),
    "dvnet": NetworkEntry(lambda shape, _: _module("dvnet").DVNetStandIn(shape), 8, stand_in=True),
}


def network_names() -> tuple[str, ...]:
    """Names that `build_network` takes."""
    return tuple(NETWORKS)


def network_entry(name: str) -> NetworkEntry:
    """Return the entry of a network; raises InputError, which lists the names, where there is none."""
    if name not in NETWORKS:
        listed = ", ".join(f"{known} (a stand-in)" if entry.stand_in else known for known, entry in NETWORKS.items())
        raise InputError(f"no network is called '{name}': choose one of {listed}")
    return NETWORKS[name]


def check_crop_shape(name: str, shape: Sequence[int]) -> None:
    """Raise InputError where a network of this name cannot see crops (z, y, x) of this shape."""
    entry = network_entry(name)
    least, multiple = entry.least_voxels, entry.multiple
    got = f"got {','.join(map(str, shape))}"
    if len(shape) != 3 or min(shape) < least or any(size % multiple for size in shape):
        of = "" if multiple == 1 else f", each a multiple of {multiple}"
        raise InputError(
            f"the crop of '{name}' needs {least} voxels or more on each of three axes{of}, {got}: "
            f"its smallest crop is {least},{least},{least}"
        )
    if shape[0] * shape[1] * shape[2] > MOST_VOXELS:
        raise InputError(f"the crop may have {MOST_VOXELS} voxels (256,256,256) at most, {got}: take a coarser spacing")


def network_builder(name: str, moving_channels: int) -> Builder:
    """Return what builds a network; InputError where it cannot be given the moving mask as a second channel."""
    entry = network_entry(name)
    build = entry.build if moving_channels == 1 else entry.build_with_mask
    if build is None:
        able = ", ".join(known for known, entry in NETWORKS.items() if entry.build_with_mask)
        raise InputError(
            f"'{name}' takes the moving image alone: a network that is given the moving mask too is one of {able}"
        )
    return build


def build_network(
    name: str, input_shape: tuple[int, int, int] = (32, 96, 96), spacing_mm: float = 2.5, moving_channels: int = 1
) -> nn.Module:
    """Make an untrained network: `network(fixed, moving)` takes two (b, 1, z, y, x) and returns (b, 6), mm and degrees.

    `input_shape` is the crop's (z, y, x), `spacing_mm` its spacing, which only networks that match tokens use. With two
    moving channels the moving crop is (b, 2, z, y, x): the image and the structure's mask. The weights are drawn from
    torch's global generator. Raises InputError for an unknown name, and for a crop of a shape that the network cannot
    have.
    """
    check_crop_shape(name, input_shape)
    return network_builder(name, moving_channels)(input_shape, spacing_mm)


def count_parameters(network: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
