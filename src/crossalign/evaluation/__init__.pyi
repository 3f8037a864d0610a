"""How good a registration is: SRE, TRE, Dice, and the papers' protocol with its tables and statistics."""

from .accuracy import (
    dice_score as dice_score,
)
from .accuracy import (
    surface_registration_error_mm as surface_registration_error_mm,
)
from .accuracy import (
    target_registration_error_mm as target_registration_error_mm,
)
from .accuracy import (
    target_registration_errors_mm as target_registration_errors_mm,
)
from .calibration import (
    CalibrationReport as CalibrationReport,
)
from .calibration import (
    fit_calibration as fit_calibration,
)
from .calibration import (
    judge_calibration as judge_calibration,
)
from .error_estimates import (
    ErrorEstimates as ErrorEstimates,
)
from .error_estimates import (
    read_error_estimates as read_error_estimates,
)
from .error_parts import ErrorParts as ErrorParts
from .error_parts import error_parts as error_parts
from .initialisations import (
    InitialisationRange as InitialisationRange,
)
from .initialisations import (
    NamedInitialisation as NamedInitialisation,
)
from .initialisations import (
    draw_initialisations as draw_initialisations,
)
from .initialisations import (
    parse_initialisations as parse_initialisations,
)
from .plots import box_plots as box_plots
from .plots import failure_curves as failure_curves
from .plots import part_plots as part_plots
from .plots import write_figure as write_figure
from .protocol import (
    evaluate as evaluate,
)
from .protocol import (
    evaluate_case as evaluate_case,
)
from .protocol import (
    scores_of as scores_of,
)
from .result_files import (
    check_evaluation_output as check_evaluation_output,
)
from .result_files import (
    evaluation_paths as evaluation_paths,
)
from .result_files import (
    rows_csv as rows_csv,
)
from .result_files import (
    summary_csv as summary_csv,
)
from .result_files import (
    summary_latex as summary_latex,
)
from .result_files import (
    summary_markdown as summary_markdown,
)
from .result_files import (
    write_evaluation as write_evaluation,
)
from .rows import (
    Evaluation as Evaluation,
)
from .rows import (
    Row as Row,
)
from .rows import (
    Scores as Scores,
)
from .rows import (
    StepScore as StepScore,
)
from .statistics import MeanSd as MeanSd
from .statistics import holm as holm
from .summary import compare_with_best as compare_with_best
from .summary import summarise as summarise
