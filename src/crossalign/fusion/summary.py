"""Mean, standard deviation and number of cases of each method's scores over all pairs, as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from crossalign.evaluation.paper_tables import Cell, Table
from crossalign.fusion.evaluation import WHOLE_VOLUME, FusionEvaluation, FusionRow
from crossalign.fusion.metrics.lesions import LEAST_CONTRAST, SHELL_MM, SHOWN_AUC

Score = Callable[[FusionRow], float]
QUALITY: Mapping[str, Score] = {
    "SSIM mean": lambda row: row.scores.inputs["ssim"].mean(),
    "SSIM smaller": lambda row: row.scores.inputs["ssim"].smaller(),
    "Qabf": lambda row: row.scores.qabf,
    "Nabf": lambda row: row.scores.nabf,
    "VIF": lambda row: row.scores.inputs["vif"].mean(),
    "NMI": lambda row: row.scores.inputs["nmi"].mean(),
    "R2 MRI": lambda row: _read_out(row, "read_out_r2_mri"),
    "R2 PET": lambda row: _read_out(row, "read_out_r2_pet"),
    "R2 MRI, 27": lambda row: _read_out(row, "read_out_r2_mri_27"),
    "R2 PET, 27": lambda row: _read_out(row, "read_out_r2_pet_27"),
    "seconds": lambda row: row.seconds,
}
LESION: Mapping[str, Score] = {
    "AUC fused": lambda row: _lesion(row, "lesion_auc_fused"),
    "AUC MRI": lambda row: _lesion(row, "lesion_auc_mri"),
    "AUC PET": lambda row: _lesion(row, "lesion_auc_pet"),
    "lead kept": lambda row: row.lesion.lead_kept if row.lesion is not None and row.lesion.shown else math.nan,
    "contrast kept, MRI": lambda row: _lesion(row, "lesion_contrast_kept_mri"),
    "contrast kept, PET": lambda row: _lesion(row, "lesion_contrast_kept_pet"),
    "CNR fused": lambda row: _lesion(row, "lesion_cnr_fused"),
    "CNR MRI": lambda row: _lesion(row, "lesion_cnr_mri"),
    "CNR PET": lambda row: _lesion(row, "lesion_cnr_pet"),
}
QUALITY_NOTE = (
    "Mean ± sd over n cases, whole volumes. R2: of a linear read-out of an input from the fused volume within the "
    "body, from one voxel or from the 27 around it, tested on blocks of slices that it was not fitted to."
)
LESION_NOTE = (
    f"Lesion against the shell up to {SHELL_MM:g} mm around it, inside the body, without the voxels that touch it. "
    f"Lead kept: (AUC fused - 0.5) / (AUC PET - 0.5), of the cases whose AUC PET is over {SHOWN_AUC:g}; its n and its "
    f"lowest value follow. Contrast kept: fused over input, where the input's is {LEAST_CONTRAST:g} of the scale or "
    "more. CNR: contrast over the sd of the shell."
)


def summary_markdown(evaluation: FusionEvaluation) -> tuple[str, ...]:
    """Write the tables over all cases; none for a single case without a lesion."""
    whole = [row for row in evaluation.rows if row.protocol == WHOLE_VOLUME]
    by_method = {name: [row for row in whole if row.method == name] for name in dict.fromkeys(r.method for r in whole)}
    cases = len({row.case for row in whole})
    parts = []
    if cases > 1:
        lines = ([name, str(len(rows)), *_cells(rows, QUALITY)] for name, rows in by_method.items())
        parts += [_table(f"### Over {cases} cases: whole volume", ("method", "n", *QUALITY), lines), QUALITY_NOTE]
    lesions = {name: [row for row in rows if row.lesion is not None] for name, rows in by_method.items()}
    if any(lesions.values()):
        titles = ("method", "n", *LESION, "n of lead", "least lead")
        lines = ([name, str(len(rows)), *_cells(rows, LESION), *_least(rows)] for name, rows in lesions.items() if rows)
        parts += [_table("### Lesions", titles, lines), LESION_NOTE]
    return tuple(parts)


def mean_and_sd(values: Iterable[float]) -> tuple[float, float, int]:
    """Return mean, sample standard deviation (NaN of fewer than two) and number of the values that are defined."""
    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) == 0:
        return math.nan, math.nan, 0
    return float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else math.nan, len(known)


def _cells(rows: list[FusionRow], scores: Mapping[str, Score]) -> list[str]:
    cells = []
    for score in scores.values():
        mean, sd, count = mean_and_sd(score(row) for row in rows)
        cells.append("" if count == 0 else f"{mean:.3f}" if math.isnan(sd) else f"{mean:.3f} ± {sd:.3f}")
    return cells


def _least(rows: list[FusionRow]) -> tuple[str, str]:
    leads = [value for row in rows if not math.isnan(value := LESION["lead kept"](row))]
    return str(len(leads)), f"{min(leads):.3f}" if leads else ""


def _lesion(row: FusionRow, name: str) -> float:
    return math.nan if row.lesion is None else row.lesion.values()[name]


def _read_out(row: FusionRow, name: str) -> float:
    return math.nan if row.read_out is None else row.read_out.values()[name]


def _table(caption: str, titles: tuple[str, ...], lines: Iterable[list[str]]) -> str:
    return Table(caption, titles, tuple(tuple(map(Cell, line)) for line in lines)).markdown()
