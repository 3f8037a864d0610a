"""From rows to summary statistics: one row for each method and initialisation range, tested against the best method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from crossalign.evaluation.error_parts import PATIENT_AXES
from crossalign.evaluation.rows import Evaluation, pandas_module
from crossalign.evaluation.statistics import MeanSd, bootstrap_interval, holm, paired_p_values, rank_correlation

if TYPE_CHECKING:
    from pandas import DataFrame

UNDER_MM = 5.0
NO_COUNTS: Mapping[str, int] = {}
COUNT_COLUMNS = ("parameters", "trust_trusted", "trust_untrusted", "pairs")  # whole numbers, absent in some rows
TRUST_MEASURES = (
    "rank_correlation",
    "expected_sre_mm",
    "sre_mm",
    "trusted",
    "untrusted",
    "trusted_sre_mm",
    "untrusted_sre_mm",
)


def summarise(evaluation: Evaluation, parameter_counts: Mapping[str, int] = NO_COUNTS) -> DataFrame:
    """Summarise every method from every initialisation range, in this order, as a pandas table.

    Every figure counts each registration (case x initialisation) once, as the papers do. A failed registration counts
    with the errors of its initial transform and is left out of the seconds; one that stopped before a stage stands
    there where it ended. `..._mean`, `_sd`, `_median`, `_low` and `_high` (see `MeanSd`) are of the initial and the
    final SRE, TRE and Dice, of the SRE after each stage, of the seconds, and of the parts of the initial and the final
    error: the centre's distance and the angle of the rotation; along each of the patient's axes the centre's error with
    its sign (the mean is the bias) and, as `..._abs_mm`, without. `trust_...` is what the method's expected
    SRE is worth, over the registrations that have one: Spearman's correlation with the true SRE, and the count and mean
    true SRE of those that it trusts and does not. `best` and `against_best_...` are of `compare_with_best`.
    `parameter_counts` says how many trainable parameters one stage of a method has.
    """
    rows = evaluation.to_dataframe()
    stages = sum(column.startswith("sre_step_") for column in rows.columns)
    summaries = [
        {"method": method, "initialisation": initialisation, "parameters": parameter_counts.get(method)}
        | _summary(_selected(rows, initialisation, method), stages, evaluation.seed)
        for initialisation in evaluation.initialisations
        for method in evaluation.methods
    ]
    table: DataFrame = (
        pandas_module()
        .DataFrame(summaries)
        .merge(compare_with_best(evaluation), how="left", on=["method", "initialisation"])
    )
    return table.astype(dict.fromkeys(COUNT_COLUMNS, "Int64"))


def compare_with_best(evaluation: Evaluation) -> DataFrame:
    """Test every other method against the best one from the same initialisation range, as a pandas table.

    The best has the lowest mean SRE (the first of equals, and no method that always failed). Registrations are paired
    on (case, repeat). `against_best_difference_mm` is the mean of method - best, with its 95 % bootstrap interval by
    patient; the p-values are of the paired t-test and of Wilcoxon's, also corrected by Holm over all comparisons of the
    evaluation.
    """
    rows = evaluation.to_dataframe()
    compared: list[dict[str, Any]] = [
        {"method": method, "best": best, "initialisation": initialisation}
        | _comparison(_selected(rows, initialisation, method), _selected(rows, initialisation, best), evaluation.seed)
        for initialisation in evaluation.initialisations
        for best in (_best_method(rows, evaluation.methods, initialisation),)
        for method in evaluation.methods
        if method != best
    ]
    for test in ("t_p", "wilcoxon_p"):
        corrected = holm([comparison[f"against_best_{test}"] for comparison in compared])
        for comparison, p in zip(compared, corrected, strict=True):
            comparison[f"against_best_{test}_holm"] = p
    measures = ("difference_mm", "difference_mm_low", "difference_mm_high")
    tests = ("t_p", "t_p_holm", "wilcoxon_p", "wilcoxon_p_holm")
    named = (f"against_best_{name}" for name in (*measures, *tests))
    columns = ["method", "initialisation", "best", "pairs", *named]
    table: DataFrame = pandas_module().DataFrame(compared, columns=columns)
    return table


def plain_records(table: DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as plain values by column; None where a value is undefined."""
    found: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
    return found


def _selected(rows: DataFrame, initialisation: str, method: str) -> DataFrame:
    return rows[(rows.initialisation == initialisation) & (rows.method == method)]


def _summary(rows: DataFrame, stages: int, seed: int) -> dict[str, object]:
    failed = rows.error != ""
    measures = {
        "initial_sre_mm": rows.initial_sre_mm,
        "sre_mm": rows.sre_mm,
        **{f"stage_{k}_sre_mm": _after_stage(rows, k) for k in range(1, stages + 1)},
        **{name: rows[name] for name in ("initial_tre_mm", "tre_mm", "initial_dice", "dice")},
        "seconds": rows.seconds.mask(failed),
        **_parts(rows, "initial_"),
        **_parts(rows, ""),
    }
    patients = rows.patient.tolist()
    return {
        "n": len(rows),
        "patients": rows.patient.nunique(),
        "failed": int(failed.sum()),
        **{
            f"{name}_{part}": value
            for name, values in measures.items()
            for part, value in asdict(MeanSd.of(values, patients, seed)).items()
        },
        **{f"stage_{k}_seconds_median": rows[f"seconds_step_{k}"].median() for k in range(1, stages + 1)},
        "fraction_improved": float((rows.sre_mm < rows.initial_sre_mm).mean()),
        "fraction_under_5mm": float((rows.sre_mm < UNDER_MM).mean()),
        **{f"trust_{name}": value for name, value in _trust(rows[rows.expected_sre_mm.notna()]).items()},
    }


def _parts(rows: DataFrame, prefix: str) -> dict[str, Any]:
    along = [f"{prefix}center_error_{axis}" for axis in PATIENT_AXES]
    signed = {f"{name}_mm": rows[f"{name}_mm"] for name in along}
    sizes = {f"{name}_abs_mm": rows[f"{name}_mm"].abs() for name in along}
    whole = {name: rows[name] for name in (f"{prefix}center_error_mm", f"{prefix}angle_error_deg")}
    return whole | signed | sizes


def _after_stage(rows: DataFrame, stage: int) -> DataFrame:
    reached = rows[f"sre_step_{stage}_mm"]
    return reached.fillna(rows.sre_mm) if reached.notna().any() else reached


def _trust(rows: DataFrame) -> dict[str, float | None]:
    if len(rows) == 0:
        return dict.fromkeys(TRUST_MEASURES)
    trusted, untrusted = rows[rows.trusted.eq(True)], rows[rows.trusted.eq(False)]
    correlation = rank_correlation(rows.expected_sre_mm.to_numpy(float), rows.sre_mm.to_numpy())
    means = (part.sre_mm.mean() for part in (trusted, untrusted))
    values = (correlation, rows.expected_sre_mm.mean(), rows.sre_mm.mean(), len(trusted), len(untrusted), *means)
    return dict(zip(TRUST_MEASURES, values, strict=True))


def _best_method(rows: DataFrame, methods: tuple[str, ...], initialisation: str) -> str:
    def rank(method: str) -> tuple[bool, float]:
        selected = _selected(rows, initialisation, method)
        return bool((selected.error != "").all()), float(selected.sre_mm.to_numpy().mean())

    return min(methods, key=rank)


def _comparison(rows: DataFrame, best: DataFrame, seed: int) -> dict[str, object]:
    pairs = rows.merge(best, on=["case", "repeat"], suffixes=("", "_best"))
    a, b = pairs.sre_mm.to_numpy(), pairs.sre_mm_best.to_numpy()
    low, high = bootstrap_interval(a - b, pairs.patient.tolist(), seed)
    t_p, wilcoxon_p = paired_p_values(a, b)
    return {
        "pairs": len(pairs),
        "against_best_difference_mm": float((a - b).mean()),
        "against_best_difference_mm_low": low,
        "against_best_difference_mm_high": high,
        "against_best_t_p": t_p,
        "against_best_wilcoxon_p": wilcoxon_p,
    }
