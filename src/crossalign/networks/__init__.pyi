"""Registration networks, by name: crops in, six parameters or matches out. Loaded on first use."""

from .attention_reg import (
    AttentionReg as AttentionReg,
)
from .attention_reg import (
    CrossModalAttention as CrossModalAttention,
)
from .attention_reg import (
    Extractor as Extractor,
)
from .correspondence import CorrespondenceReg as CorrespondenceReg
from .crop import crop_points as crop_points
from .registry import (
    build_network as build_network,
)
from .registry import (
    count_parameters as count_parameters,
)
from .registry import (
    network_names as network_names,
)
