"""Registration networks, by name: crops in, six parameters or matches out."""

from crossalign.networks.attention_reg import (
    AttentionReg,
    CrossModalAttention,
    Extractor,
)
from crossalign.networks.correspondence import (
    CorrespondenceReg,
)
from crossalign.networks.crop import (
    crop_lattice,
)
from crossalign.networks.registry import (
    build_network,
    count_parameters,
    network_names,
)

__all__ = [
    "AttentionReg",
    "CorrespondenceReg",
    "CrossModalAttention",
    "Extractor",
    "build_network",
    "count_parameters",
    "crop_lattice",
    "network_names",
]
