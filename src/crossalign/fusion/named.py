"""Fusion methods by name, as the command line and the tables spell them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from crossalign.errors import InputError
from crossalign.fusion.laplacian import LaplacianPyramid
from crossalign.fusion.method import FusionMethod
from crossalign.fusion.pointwise import Average, Maximum
from crossalign.fusion.wavelet import WaveletFusion
from crossalign.models.fusion_zoo import shipped_fusion_names, shipped_fusion_path

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
    from crossalign.fusion.network import named_network  # slow to import

    return named_network(name, emphasis or "balanced", device)


def _network_names() -> tuple[str, ...]:
    """Shipped networks whose weights are there."""
    return tuple(name for name in shipped_fusion_names() if shipped_fusion_path(name).is_file())
