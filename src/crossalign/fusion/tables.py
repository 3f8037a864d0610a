"""A fusion's evaluation as text: every number as CSV, and the tables to read as Markdown."""

from __future__ import annotations

import math
import os
from pathlib import Path

from crossalign.cells import csv_text, markdown_cell
from crossalign.errors import OutputError
from crossalign.fusion.evaluation import LIMIT, PUBLISHED_SLICE, WHOLE_VOLUME, FusionEvaluation, FusionRow
from crossalign.fusion.metrics.scores import INPUT_SCORES, FusionScores
from crossalign.output import check_output, whole_files, write_text

# Printed in the paper (arXiv 2310.06291, its table of results): other data, one slice, means over both inputs.
PUBLISHED = (
    ("SwinFuse (2-D)", 14.102, 0.623, 1.275, 0.817),
    ("MATR (2-D)", 15.997, 0.658, 1.451, 0.795),
    ("DILRAN (2-D)", 19.028, 0.690, 1.301, 0.806),
    ("DC2Fusion (3-D)", 20.714, 0.718, 1.312, 0.807),
)
WHOLE_TITLES = (
    *("method", "SSIM mean", "SSIM smaller", "SSIM MRI / PET", "Qabf", "Qabf MRI / PET"),
    *("PSNR mean (dB)", "PSNR smaller", "NMI", "FMI", "MI (bits)", "VIF", "entropy", "SF", "seconds"),
)
SLICE_TITLES = ("method", "PSNR", "SSIM", "NMI", "FMI", "SSIM MRI / PET", "Qabf")


def fusion_csv(evaluation: FusionEvaluation) -> str:
    """Write one line for each row: every score against each input, their mean and the smaller; an empty cell is NaN."""
    names = tuple(INPUT_SCORES)
    header = ["case", "protocol", "method", *(f"{n}_{part}" for n in names for part in ("mri", "pet", "mean", "min"))]
    header += ["qabf", "entropy_bits", "spatial_frequency", "seconds", "warnings"]
    lines: list[list[str]] = [header]
    for row in evaluation.rows:
        scores = [row.scores.inputs[name] for name in names]
        values = [value for s in scores for value in (s.mri, s.pet, s.mean(), s.smaller())]
        values += [row.scores.qabf, row.scores.entropy_bits, row.scores.spatial_frequency, row.seconds]
        cells = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
        lines.append([row.case, row.protocol, row.method, *cells, " | ".join(row.warnings)])
    return csv_text(lines)


def fusion_markdown(evaluation: FusionEvaluation) -> str:
    """Write, for each case, the table of the whole volume and that of the published slice, and how they were made."""
    cases = list(dict.fromkeys(row.case for row in evaluation.rows))
    parts = []
    for case in cases:
        rows = [row for row in evaluation.rows if row.case == case]
        whole = [_whole_line(row) for row in rows if row.protocol == WHOLE_VOLUME]
        parts.append(f"### {markdown_cell(case)}: whole volume\n\n" + _table(WHOLE_TITLES, whole))
        planes = [_slice_line(row) for row in rows if row.protocol == PUBLISHED_SLICE]
        parts.append(f"### {markdown_cell(case)}: published slice\n\n" + _table(SLICE_TITLES, planes))
    return "\n\n".join([*parts, _published(), _notes(evaluation)]) + "\n"


def fusion_paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
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
) -> tuple[Path, Path]:
    """Write the CSV to `path` and the Markdown beside it: both, or neither. Raises OutputError."""
    paths = fusion_paths(path)
    with whole_files(paths, overwrite) as (table, page):
        write_text(fusion_csv(evaluation), table)
        write_text(fusion_markdown(evaluation), page)
    return paths


def _whole_line(row: FusionRow) -> list[str]:
    scores, of = row.scores, row.scores.inputs
    name = "*limit: voxels optimised for SSIM*" if row.method == LIMIT else markdown_cell(row.method)
    return [
        *(name, _n(of["ssim"].mean()), _n(of["ssim"].smaller()), _both(scores, "ssim")),
        *(_n(scores.qabf), _both(scores, "qabf_input"), _n(of["psnr_db"].mean(), 2), _n(of["psnr_db"].smaller(), 2)),
        *(_n(of[name].mean()) for name in ("nmi", "fmi", "mi_bits", "vif")),
        *(_n(scores.entropy_bits, 2), _n(scores.spatial_frequency), _n(row.seconds, 2)),
    ]


def _slice_line(row: FusionRow) -> list[str]:
    of = row.scores.inputs
    means = (_n(of["psnr_db"].mean(), 2), *(_n(of[name].mean()) for name in ("ssim", "nmi", "fmi")))
    return [markdown_cell(row.method), *means, _both(row.scores, "ssim"), _n(row.scores.qabf)]


def _both(scores: FusionScores, name: str) -> str:
    return f"{_n(scores.inputs[name].mri)} / {_n(scores.inputs[name].pet)}"


def _n(value: float, digits: int = 3) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _table(titles: tuple[str, ...], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (titles, ["---"] * len(titles), *lines))


def _published() -> str:
    lines = [
        [name, f"{psnr:.3f}", f"{ssim:.3f}", f"{nmi:.3f}", f"{fmi:.3f}"] for name, psnr, ssim, nmi, fmi in PUBLISHED
    ]
    return (
        "### As printed in the paper\n\n"
        + _table(SLICE_TITLES[:5], lines)
        + "\n\nPrinted, not runs of ours: one slice of other data (ADNI), so not to be ranked with the tables above."
    )


def _notes(evaluation: FusionEvaluation) -> str:
    lines = [
        "- "
        + markdown_cell(f"{name}: " + (", ".join(f"{key} = {value}" for key, value in used.items()) or "no settings"))
        for name, used in evaluation.settings.items()
    ]
    return (
        "Mean and smaller are over the two inputs. PSNR, NMI, FMI, MI and VIF are means over both. "
        "PSNR has no maximum (a copy of one input scores infinity) and favours the average; read Qabf beside SSIM.\n\n"
        "Settings:\n\n" + "\n".join(lines)
    )
