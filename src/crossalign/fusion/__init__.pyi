"""Fusion of an MRI and a PET on one grid: `fuse(a, b, method) -> FusionResult`, and everything that it needs.

Nothing is imported before it is used: the networks, their training and the simulation run where no reader of images is.
"""

from .methods import named_fusion_method as named_fusion_method
from .networks.published import load_original_fusion_checkpoint as load_original_fusion_checkpoint
from .result import FusionMethod as FusionMethod
from .result import FusionResult as FusionResult
from .result import fuse as fuse
from .scaling import Scaling as Scaling
from .scaling import find_scaling as find_scaling
from .scaling import find_uptake_scaling as find_uptake_scaling
