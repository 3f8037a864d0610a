"""explain(problem, cascade, points) -> Explanation: what each stage of a cascade looked at."""

from crossalign.explanation.attention import (
    AttendedPoint,
    attended_point,
    attention_blocks,
    position_grid,
)
from crossalign.explanation.gradients import (
    ParameterShare,
    grad_cams,
    integrated_gradients,
    parameter_shares,
)
from crossalign.explanation.maps import (
    CropMap,
    View,
    stage_views,
)
from crossalign.explanation.result import (
    Explanation,
    StageExplanation,
    explain,
    lever_mm,
)

__all__ = [
    "CropMap",
    "Explanation",
    "AttendedPoint",
    "ParameterShare",
    "StageExplanation",
    "View",
    "attention_blocks",
    "explain",
    "grad_cams",
    "integrated_gradients",
    "lever_mm",
    "attended_point",
    "parameter_shares",
    "position_grid",
    "stage_views",
]
