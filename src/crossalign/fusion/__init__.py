"""fuse(a, b, method) -> FusionResult: one volume out of an MRI and a PET on one grid; and all that fusion needs."""

from crossalign.fusion.methods import (
    named_fusion_method,
)
from crossalign.fusion.networks.published import (
    load_original_fusion_checkpoint,
)
from crossalign.fusion.result import (
    FusionMethod,
    FusionResult,
    fuse,
)
from crossalign.fusion.scaling import (
    Scaling,
    find_scaling,
    find_uptake_scaling,
)

__all__ = [
    "FusionMethod",
    "FusionResult",
    "Scaling",
    "find_scaling",
    "find_uptake_scaling",
    "fuse",
    "load_original_fusion_checkpoint",
    "named_fusion_method",
]
