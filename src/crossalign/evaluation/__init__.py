"""How good a registration is: SRE, TRE, Dice, and the papers' protocol with its tables and statistics."""

from crossalign.evaluation.calibration import (
    CalibrationReport,
    ErrorEstimates,
    fit_calibration,
    judge_calibration,
    read_error_estimates,
)
from crossalign.evaluation.figures import (
    box_plots,
    failure_curves,
    write_figure,
)
from crossalign.evaluation.initialisations import (
    InitialisationRange,
    draw_initialisations,
    parse_initialisations,
)
from crossalign.evaluation.metrics import (
    dice_score,
    surface_registration_error_mm,
    target_registration_error_mm,
    target_registration_errors_mm,
)
from crossalign.evaluation.protocol import (
    Evaluation,
    Row,
    Scores,
    StepScore,
    evaluate,
    evaluate_case,
    scores_of,
)
from crossalign.evaluation.statistics import (
    Spread,
    holm,
)
from crossalign.evaluation.summary import (
    Comparison,
    StageSummary,
    Summary,
    Trust,
    compare_with_best,
    summarize,
)
from crossalign.evaluation.tables import (
    check_evaluation_output,
    evaluation_paths,
    rows_csv,
    summary_csv,
    summary_latex,
    summary_markdown,
    write_evaluation,
)

__all__ = [
    "CalibrationReport",
    "Comparison",
    "ErrorEstimates",
    "Evaluation",
    "Row",
    "Scores",
    "Spread",
    "StageSummary",
    "InitialisationRange",
    "StepScore",
    "Summary",
    "Trust",
    "box_plots",
    "check_evaluation_output",
    "compare_with_best",
    "dice_score",
    "draw_initialisations",
    "evaluate",
    "evaluate_case",
    "evaluation_paths",
    "failure_curves",
    "fit_calibration",
    "holm",
    "judge_calibration",
    "parse_initialisations",
    "read_error_estimates",
    "rows_csv",
    "scores_of",
    "summarize",
    "summary_csv",
    "summary_latex",
    "summary_markdown",
    "surface_registration_error_mm",
    "target_registration_error_mm",
    "target_registration_errors_mm",
    "write_evaluation",
    "write_figure",
]
