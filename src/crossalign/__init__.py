"""crossalign: register and fuse 3-D medical images of different modalities. Research software, not a medical device."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

__version__ = version("crossalign")

# Loaded on first use, so that `import crossalign` and the command line's help stay quick.
_HOME = {
    "Grid": "geometry",
    "Rigid": "geometry",
    "resample": "geometry",
    "Image": "images",
    "LabelMap": "images",
    "read_image": "images",
    "read_label_map": "images",
    "read_transform": "images",
    "write_image": "images",
    "write_label_map": "images",
    "write_transform": "images",
    "FusionMethod": "fusion",
    "FusionResult": "fusion",
    "Scaling": "fusion",
    "fuse": "fusion",
    "named_fusion_method": "fusion",
    "build_network": "networks",
    "load_original_checkpoint": "models",
    "load_original_fusion_checkpoint": "fusion",
    "RegistrationResult": "registration",
    "register": "registration",
    "named_method": "registration",
}
__all__ = [
    "__version__",
    "Grid",
    "Rigid",
    "resample",
    "Image",
    "LabelMap",
    "read_image",
    "read_label_map",
    "read_transform",
    "write_image",
    "write_label_map",
    "write_transform",
    "FusionMethod",
    "FusionResult",
    "Scaling",
    "fuse",
    "named_fusion_method",
    "build_network",
    "load_original_checkpoint",
    "load_original_fusion_checkpoint",
    "RegistrationResult",
    "register",
    "named_method",
]

if TYPE_CHECKING:
    from crossalign.fusion import (
        FusionMethod,
        FusionResult,
        Scaling,
        fuse,
        load_original_fusion_checkpoint,
        named_fusion_method,
    )
    from crossalign.geometry import Grid, Rigid, resample
    from crossalign.images import (
        Image,
        LabelMap,
        read_image,
        read_label_map,
        read_transform,
        write_image,
        write_label_map,
        write_transform,
    )
    from crossalign.models import load_original_checkpoint
    from crossalign.networks import build_network
    from crossalign.registration import RegistrationResult, named_method, register


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'crossalign' has no attribute '{name}'")
    return getattr(import_module(f"crossalign.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
