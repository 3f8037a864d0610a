"""fuse(a, b, method) -> FusionResult: one volume out of an MRI and a PET that lie on one grid, and the methods."""

from crossalign.fusion.fuse import fuse
from crossalign.fusion.method import FusionMethod
from crossalign.fusion.named import named_fusion_method
from crossalign.fusion.result import FusionResult
from crossalign.fusion.scaling import Scaling, find_scaling, find_uptake_scaling

__all__ = [
    "FusionMethod",
    "FusionResult",
    "Scaling",
    "find_scaling",
    "find_uptake_scaling",
    "fuse",
    "named_fusion_method",
]
