"""explain(problem, method, points) -> Explanation: what each application of a network attended to."""

from .attention import AttendedPoint as AttendedPoint
from .attention import attended_point as attended_point
from .crops import CropMap as CropMap
from .crops import StageCrop as StageCrop
from .gradients import ParameterAttribution as ParameterAttribution
from .gradients import attribute_parameters as attribute_parameters
from .gradients import grad_cams as grad_cams
from .gradients import integrated_gradients as integrated_gradients
from .result import Explanation as Explanation
from .result import StageExplanation as StageExplanation
from .result import explain as explain
from .result import lever_mm as lever_mm
from .result import stage_crops as stage_crops
