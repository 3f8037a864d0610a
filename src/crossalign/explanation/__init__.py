"""explain(problem, cascade, points) -> Explanation: what each stage of a cascade looked at."""

from crossalign.explanation.attribution import ParameterShare, integrated_gradients, parameter_shares
from crossalign.explanation.blocks import attention_blocks, position_grid
from crossalign.explanation.explain import Explanation, StageExplanation, explain, lever_mm
from crossalign.explanation.grad_cam import grad_cams
from crossalign.explanation.maps import CropMap
from crossalign.explanation.points import Look, look_of
from crossalign.explanation.views import View, stage_views

__all__ = [
    "CropMap",
    "Explanation",
    "Look",
    "ParameterShare",
    "StageExplanation",
    "View",
    "attention_blocks",
    "explain",
    "grad_cams",
    "integrated_gradients",
    "lever_mm",
    "look_of",
    "parameter_shares",
    "position_grid",
    "stage_views",
]
