"""Fusion of an MRI and a PET on one grid: `fuse(a, b, method) -> FusionResult`, and everything that it needs.

Nothing is imported before it is used: the networks, their training and the simulation run where no reader of images is.
"""

from .methods import named_fusion_method as named_fusion_method
from .networks.published import load_original_fusion_checkpoint as load_original_fusion_checkpoint
from .result import FusionMethod as FusionMethod
from .result import FusionResult as FusionResult
from .result import fuse as fuse
from .scaling import Scaling as Scaling
from .window_settings import WindowSettings as WindowSettings
from .windows import Window as Window
from .windows import apply_window as apply_window
from .windows import default_window as default_window
from .windows import find_scaling as find_scaling
