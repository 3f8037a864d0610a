"""Tables of `studies/trust_sets.py`: the calibration that is fitted on them, and what results are worth by it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from studies.trust_pairs import CONSTANT, MR_MR, NOISE, ORDINARY, ORGAN, PHANTOM, SETS

from crossalign.evaluation.calibration import expected_mm, expected_unseen_mm, fit_calibration
from crossalign.evaluation.error_estimates import EVIDENCE_PREFIX, ErrorEstimates
from crossalign.models import Calibration
from crossalign.registration.evidence import EVIDENCE
from crossalign.registration.orientation import LEAST_GIVEN

FIT, JUDGE = "fit", "judge"
WRONG_MM = 10.0
OUTSIDE, OUTSIDE_MM = (MR_MR, ORGAN, PHANTOM, NOISE, CONSTANT), 12.0  # no prostate's MR and ultrasound
RISK, MOST_KEPT = 0.01, 0.99
LEAST_KEPT = 0.89
RECOGNISED = 0.2  # weight in a fit of what the recognition network has something against, and so tells already
CURVE = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # fractions of ordinary results
UNLIKELY = -math.log10(LEAST_GIVEN)


def read_tables(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Read the rows of one table or more."""
    rows = []
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            rows += list(csv.DictReader(file))
    return rows


def fitted(rows: Sequence[dict[str, str]], least_kept: float = LEAST_KEPT) -> Calibration:
    """Fit a calibration on the rows `fit`.

    What is no prostate's MR and ultrasound counts as wrong whatever the answer is. The threshold is the highest at
    which one in a hundred of the trusted results is over 10 mm, by fits that did not see the patient; it trusts
    `least_kept` to 99 % of the ordinary ones. What the recognition network takes for other scans is not trusted, and
    so not counted. What it has anything against weighs little in the fit, whose slopes are to tell the rest.
    """
    used = [row for row in rows if row["role"] == FIT and not row["error"]]
    estimates = estimates_of(used, OUTSIDE_MM)
    unseen, ordinary = expected_unseen_mm(estimates), estimates.ordinary()
    recognised = np.array([not row.get("recognition") for row in used])
    order = np.argsort(unseen)
    order = order[recognised[order]]
    risk = (np.cumsum(estimates.sre_mm[order] > WRONG_MM)) / np.arange(1, len(order) + 1)
    safe = unseen[order][risk <= RISK]
    least, most = np.quantile(unseen[ordinary], (least_kept, MOST_KEPT)).tolist()
    threshold = min(most, max(least, float(safe.max()) if len(safe) else 0.0))
    return fit_calibration(estimates, threshold_mm=round(threshold, 2))


def estimates_of(rows: Sequence[dict[str, str]], outside_mm: float = 0.0) -> ErrorEstimates:
    """Take the registrations of a table that were not refused; errors outside the networks' domain are so or more."""
    used = [row for row in rows if not row["error"]]
    least = np.array([outside_mm if row["set"] in OUTSIDE else 0.0 for row in used])
    evidence = {name: _numbers(used, f"{EVIDENCE_PREFIX}{name}") for name in EVIDENCE}
    known = {name: values for name, values in evidence.items() if not np.isnan(values).all()}
    dispersion = _numbers(used, "dispersion_mm")
    return ErrorEstimates(
        sre_mm=np.maximum(_numbers(used, "sre_mm"), least),
        dispersion_mm=None if np.isnan(dispersion).any() else dispersion,
        network_mm=_numbers(used, "network_sre_mm"),
        evidence=known,
        patients=tuple(row["patient"] for row in used),
        failure=np.array([row["set"] != ORDINARY for row in used], dtype=np.bool_),
        weight=np.array([RECOGNISED if _is_recognised(row) else 1.0 for row in used]),
    )


def _is_recognised(row: dict[str, str]) -> bool:
    """Say whether the recognition network has something against a registration's scans or their orientation."""
    return bool(row.get("recognition")) or float(row.get(f"{EVIDENCE_PREFIX}unlikely") or 0) > UNLIKELY


def judged(rows: Sequence[dict[str, str]], calibration: Calibration) -> list[dict[str, str]]:
    """Return the rows with what a calibration says of them; those that were refused, as they are."""
    used = [row for row in rows if not row["error"]]
    expected = dict(zip(map(id, used), expected_mm(calibration, estimates_of(used)).tolist(), strict=True))
    said = []
    for row in rows:
        value = expected.get(id(row), math.nan)
        bound = calibration.bound_mm(value)
        trusted = value <= calibration.threshold_mm and not row.get("recognition")
        said.append(
            row
            | {
                "expected_sre_mm": str(cell(value)),
                "bound_mm": str(cell(bound)) if trusted else "",
                "trusted": str(int(trusted)),
            }
        )
    return said


def write_recipe(path: Path, calibration: Calibration, rows: Sequence[dict[str, str]]) -> None:
    """Put a calibration into a model's recipe, rounded to four digits, and what it is worth into its card."""
    recipe = json.loads(path.read_text(encoding="utf-8"))
    recipe["calibration"] = _rounded(asdict(calibration))
    recipe["card"]["expected_error"] = card_text(calibration, rows)
    path.write_text(json.dumps(recipe, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def card_text(calibration: Calibration, rows: Sequence[dict[str, str]]) -> str:
    """Say for a model's card what the calibration was fitted on and what it is worth on the rows `judge`."""
    fitted_on = sum(row["role"] == FIT and not row["error"] for row in rows)
    text = (
        "The error-estimation heads were trained last and alone. The expected SRE is a sum of what they say and of "
        f"other evidence, fitted by `studies/trust_sets.py` on {fitted_on} registrations: simulated pairs, openly "
        "licensed ones, and failures ([how](../concepts/expected-error.md)). Not to be trusted over "
        f"{calibration.threshold_mm:.1f} mm."
    )
    judged_by = [row for row in rows if row["role"] == JUDGE]
    if not judged_by:
        return text
    return f"{text} On other patients and other failures, by the same command:\n\n" + "\n".join(figures(judged_by))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


def calibration_lines(calibration: Calibration) -> Iterator[str]:
    """Describe a calibration: what each piece of evidence adds."""
    yield f"base {calibration.base_mm:.2f} mm, trusted up to {calibration.threshold_mm:.2f} mm"
    yield f"dispersion x {calibration.per_dispersion:.2f}, the network's own x {calibration.per_network:.2f}"
    for term in sorted(calibration.terms, key=lambda one: -one.slope * one.largest):
        side = "under" if term.falls else "over"
        yield f"  {term.name} {side} {term.beyond:.3g}: x {term.slope:.3g}, up to {term.slope * term.largest:.1f} mm"
    if calibration.bound_factor is not None:
        yield f"bound: expected x {calibration.bound_factor:.2f} with {calibration.bound_probability:.0%}"


def figures(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Describe each set in a line of a Markdown table, then all of them, and what the expected error is worth."""
    yield "| set | n | trusted | of the trusted over 10 mm | true, median mm | expected, median mm | within the bound |"
    yield "|---|---|---|---|---|---|---|"
    for group in (*SETS, "all"):
        selected = [row for row in rows if group in (row["set"], "all")]
        if selected:
            yield _line(group, selected)
    yield ""
    real = [row for row in rows if row["set"] in SETS[:3]]
    for title, selected in (("ordinary, far and cut starts", real), ("every set", list(rows))):
        expected, true = _numbers(selected, "expected_sre_mm"), _numbers(selected, "sre_mm")
        both = ~np.isnan(expected) & ~np.isnan(true)
        if both.sum() > 2 and np.ptp(expected[both]) > 0 and np.ptp(true[both]) > 0:
            rank = spearmanr(expected[both], true[both]).statistic
            yield f"- rank correlation of expected and true error, {title}: {rank:.2f} (n {both.sum()})"


def threshold_curve(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Say for other thresholds how many ordinary results they trust, and how many of all trusted are over 10 mm."""
    yield "| threshold, mm | ordinary trusted | of all trusted over 10 mm |"
    yield "|---|---|---|"
    expected, true = _numbers(rows, "expected_sre_mm"), _numbers(rows, "sre_mm")
    ordinary = np.array([row["set"] == ORDINARY for row in rows])
    open_to_trust = ~np.isnan(expected) & np.array([not row.get("recognition") for row in rows])
    for part in CURVE:
        limit = float(np.quantile(np.where(open_to_trust, expected, np.inf)[ordinary], part, method="lower"))
        trusted = open_to_trust & (expected <= limit)
        wrong = int((true[trusted] > WRONG_MM).sum())
        share = f"{wrong} of {trusted.sum()} ({wrong / max(1, trusted.sum()):.1%})"
        yield f"| {limit:.2f} | {trusted[ordinary].mean():.0%} | {share} |"


def evidence_figures(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Describe each piece of evidence: its rank correlation with the true error, and its median in each set."""
    groups = [group for group in SETS if any(row["set"] == group for row in rows)]
    starts = [row for row in rows if row["set"] in SETS[:3]]
    yield f"| evidence | rank correlation, {', '.join(SETS[:3])} | {' | '.join(f'median, {one}' for one in groups)} |"
    yield f"|---|---|{'---|' * len(groups)}"
    for name in ("network_sre_mm", "dispersion_mm", *(f"{EVIDENCE_PREFIX}{one}" for one in EVIDENCE)):
        values, true = _numbers(starts, name), _numbers(starts, "sre_mm")
        known = ~np.isnan(values) & ~np.isnan(true)
        if known.sum() > 2:
            rank = spearmanr(values[known], true[known]).statistic if np.ptp(values[known]) > 0 else math.nan
            medians = [_median(_numbers([row for row in rows if row["set"] == one], name)) for one in groups]
            yield f"| {name.removeprefix(EVIDENCE_PREFIX)} | {rank:.2f} | {' | '.join(medians)} |"


def _median(values: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    return "" if np.isnan(values).all() else f"{np.nanmedian(values):.2f}"


def _line(group: str, rows: Sequence[dict[str, str]]) -> str:
    true, expected, bound = (_numbers(rows, name) for name in ("sre_mm", "expected_sre_mm", "bound_mm"))
    trusted = np.array([row["trusted"] == "1" for row in rows])
    wrong = int((true[trusted] > WRONG_MM).sum())
    share = f"{wrong} of {trusted.sum()}" + (f" ({wrong / trusted.sum():.1%})" if trusted.any() else "")
    within = trusted & ~np.isnan(bound)
    covered = f"{(true <= bound)[within].mean():.0%} (n {within.sum()})" if within.any() else ""
    medians = " | ".join("" if np.isnan(one).all() else f"{np.nanmedian(one):.1f}" for one in (true, expected))
    return f"| {group} | {len(rows)} | {trusted.mean():.0%} | {share} | {medians} | {covered} |"


def _numbers(rows: Sequence[dict[str, str]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float(row.get(name) or "nan") for row in rows], dtype=np.float64)


def cell(value: float | None) -> object:
    """Return a number for a table; empty where there is none, or it is not finite."""
    return "" if value is None or not math.isfinite(value) else value
