"""Registration networks, by name: crops in, six parameters or matches out. Loaded on first use."""

from importlib import import_module
from typing import TYPE_CHECKING

_MODULES = {
    "AttentionReg": "attention_reg",
    "CorrespondenceReg": "correspondence",
    "CrossModalAttention": "attention_reg",
    "Extractor": "attention_reg",
    "build_network": "registry",
    "count_parameters": "registry",
    "crop_points": "crop",
    "network_names": "registry",
}
__all__ = [
    "AttentionReg",
    "CorrespondenceReg",
    "CrossModalAttention",
    "Extractor",
    "build_network",
    "count_parameters",
    "crop_points",
    "network_names",
]

if TYPE_CHECKING:
    from crossalign.networks.attention_reg import AttentionReg, CrossModalAttention, Extractor
    from crossalign.networks.correspondence import CorrespondenceReg
    from crossalign.networks.crop import crop_points
    from crossalign.networks.registry import build_network, count_parameters, network_names


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'crossalign.networks' has no attribute '{name}'")
    return getattr(import_module(f"crossalign.networks.{_MODULES[name]}"), name)
