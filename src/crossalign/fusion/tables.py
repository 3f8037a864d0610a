"""A fusion's evaluation as text: every number as CSV, and the tables to read as Markdown."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from crossalign.cells import csv_text, markdown_cell
from crossalign.errors import OutputError
from crossalign.evaluation.paper_tables import Cell, Table
from crossalign.evaluation.result_files import settings_markdown
from crossalign.fusion.evaluation import LIMIT, PUBLISHED_SLICE, WHOLE_VOLUME, FusionEvaluation, FusionRow
from crossalign.fusion.metrics.scores import INPUT_SCORES
from crossalign.fusion.summary import summary_markdown
from crossalign.output import check_output, whole_files, write_text

# Printed in the paper (arXiv 2310.06291, its table of results): other data, one slice, means over both inputs.
PUBLISHED = (
    ("SwinFuse (2-D)", 14.102, 0.623, 1.275, 0.817),
    ("MATR (2-D)", 15.997, 0.658, 1.451, 0.795),
    ("DILRAN (2-D)", 19.028, 0.690, 1.301, 0.806),
    ("DC2Fusion (3-D)", 20.714, 0.718, 1.312, 0.807),
)
WHOLE_TITLES = (
    *("method", "SSIM mean", "SSIM smaller", "SSIM MRI / PET", "Qabf", "Qabf MRI / PET", "Nabf"),
    *("PSNR mean (dB)", "PSNR smaller", "NMI", "FMI", "MI (bits)", "VIF", "entropy", "SF", "seconds"),
)
SLICE_TITLES = ("method", "PSNR", "SSIM", "NMI", "FMI", "SSIM MRI / PET", "Qabf")
NOTES = (
    "Mean and smaller are over the two inputs. PSNR, NMI, FMI, MI and VIF are means over both. "
    "PSNR has no maximum (a copy of one input scores infinity) and favours the average; read Qabf beside SSIM. "
    "Nabf is the fraction of gradients where the fused image has a stronger one of its own: smaller is better."
)


def fusion_csv(evaluation: FusionEvaluation) -> str:
    """Write one line for each row: every score against each input, their mean and the smaller; an empty cell is NaN."""
    columns = [f"{name}_{part}" for name in INPUT_SCORES for part in ("mri", "pet", "mean", "min")]
    more = list(dict.fromkeys(name for row in evaluation.rows for name in _more(row)))
    own = ["qabf", "nabf", "entropy_bits", "spatial_frequency", "seconds"]
    header = ["case", "protocol", "method", *columns, *own, *more, "warnings"]
    lines: list[list[str]] = [header]
    for row in evaluation.rows:
        scores = [row.scores.inputs[name] for name in INPUT_SCORES]
        values = [value for s in scores for value in (s.mri, s.pet, s.mean(), s.smaller())]
        own_scores = row.scores
        values += [own_scores.qabf, own_scores.nabf, own_scores.entropy_bits]
        values += [own_scores.spatial_frequency, row.seconds]
        values += [_more(row).get(name, math.nan) for name in more]
        cells = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
        lines.append([row.case, row.protocol, row.method, *cells, " | ".join(row.warnings)])
    return csv_text(lines)


def _more(row: FusionRow) -> dict[str, float]:
    """Return the scores that only some rows have: of the read-out and of a lesion."""
    parts = (row.lesion, row.read_out)
    return {name: value for part in parts if part is not None for name, value in part.values().items()}


def fusion_markdown(evaluation: FusionEvaluation) -> str:
    """Write the tables over all cases, each case's of the whole volume and the slice, and how they were made."""
    parts = list(summary_markdown(evaluation))
    for case in dict.fromkeys(row.case for row in evaluation.rows):
        rows = [row for row in evaluation.rows if row.case == case]
        whole = (_whole_line(row) for row in rows if row.protocol == WHOLE_VOLUME)
        planes = (_slice_line(row) for row in rows if row.protocol == PUBLISHED_SLICE)
        parts.append(_table(f"### {markdown_cell(case)}: whole volume", WHOLE_TITLES, whole))
        if any(row.protocol == PUBLISHED_SLICE for row in rows):
            parts.append(_table(f"### {markdown_cell(case)}: published slice", SLICE_TITLES, planes))
    if all(row.protocol == WHOLE_VOLUME for row in evaluation.rows):
        return "\n\n".join([*parts, NOTES, *settings_markdown(evaluation.settings)]) + "\n"
    printed = ([name, *(_number(value) for value in values)] for name, *values in PUBLISHED)
    parts.append(_table("### As printed in the paper", SLICE_TITLES[:5], printed))
    parts.append(
        "Printed, not runs of ours: one slice of other data (ADNI), so not to be ranked with the tables above."
    )
    return "\n\n".join([*parts, NOTES, *settings_markdown(evaluation.settings)]) + "\n"


def fusion_paths(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Name the files that `write_fusion_evaluation` writes: `scores.csv` and `scores.md`. Raises OutputError."""
    path = Path(path)
    if path.suffix != ".csv":
        raise OutputError(f"{path}: the scores are written as CSV: end the name in .csv")
    return path, path.with_suffix(".md")


def check_fusion_evaluation_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise OutputError where one of the files could not be written: ask before the minutes of work, not after."""
    for name in fusion_paths(path):
        check_output(name, overwrite)


def write_fusion_evaluation(
    evaluation: FusionEvaluation, path: str | os.PathLike[str], overwrite: bool = False
) -> tuple[Path, ...]:
    """Write the CSV to `path` and the Markdown beside it: both, or neither. Raises OutputError."""
    paths = fusion_paths(path)
    with whole_files(paths, overwrite) as (table, page):
        write_text(fusion_csv(evaluation), table)
        write_text(fusion_markdown(evaluation), page)
    return paths


def _whole_line(row: FusionRow) -> list[str]:
    scores, of = row.scores, row.scores.inputs
    name = "*limit: voxels optimised for SSIM*" if row.method == LIMIT else row.method
    return [
        *(name, _number(of["ssim"].mean()), _number(of["ssim"].smaller()), _both(row, "ssim")),
        *(_number(scores.qabf), _both(row, "qabf_input"), _number(scores.nabf)),
        *(_number(of["psnr_db"].mean(), 2), _number(of["psnr_db"].smaller(), 2)),
        *(_number(of[name].mean()) for name in ("nmi", "fmi", "mi_bits", "vif")),
        *(_number(scores.entropy_bits, 2), _number(scores.spatial_frequency), _number(row.seconds, 2)),
    ]


def _slice_line(row: FusionRow) -> list[str]:
    of = row.scores.inputs
    means = (_number(of["psnr_db"].mean(), 2), *(_number(of[name].mean()) for name in ("ssim", "nmi", "fmi")))
    return [row.method, *means, _both(row, "ssim"), _number(row.scores.qabf)]


def _both(row: FusionRow, name: str) -> str:
    return f"{_number(row.scores.inputs[name].mri)} / {_number(row.scores.inputs[name].pet)}"


def _number(value: float, digits: int = 3) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _table(caption: str, titles: tuple[str, ...], lines: Iterable[Sequence[str]]) -> str:
    return Table(caption, titles, tuple(tuple(map(Cell, line)) for line in lines)).markdown()
