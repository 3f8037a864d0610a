"""The model that an adaptation ends with: its calibration, its card, its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crossalign.errors import InputError
from crossalign.evaluation import ErrorEstimates, Row, fit_calibration
from crossalign.models import Calibration, Card, Model
from crossalign.models.card import Measurements
from crossalign.training.adaptation.comparison import AFTER, Comparison
from crossalign.training.adaptation.references import KINDS, References

FEWEST_PATIENTS, FEWEST_REGISTRATIONS = 5, 25  # to fit a calibration on
RESEARCH = "Research software, not a medical device."


@dataclass(frozen=True)
class Origin:
    """What a model was adapted from and on: names, and counts of patients and pairs."""

    name: str
    source: str
    patients: int
    pairs: int
    seed: int


def calibrated(model: Model, rows: Sequence[Row], uncertain: bool) -> tuple[Model, str]:
    """Fit the calibration anew on val registrations of the adapted model; also say what was done.

    The starting model's is kept where the rows are too few, or where the references are `uncertain`: the model's own
    answers, beside which its errors look too small.
    """
    after = [row for row in rows if row.method == AFTER and not row.error]
    patients = len({row.patient for row in after})
    old = model.calibration
    if old is None:
        return model, "The starting model has no calibration, and the adapted one neither."
    if uncertain:
        return model, "The calibration is the starting model's: the val references are answers of that model itself."
    if patients < FEWEST_PATIENTS or len(after) < FEWEST_REGISTRATIONS:
        kept = f"The calibration is the starting model's: {patients} val patients with {len(after)} registrations are"
        return model, f"{kept} too few to fit it anew ({FEWEST_PATIENTS} and {FEWEST_REGISTRATIONS} would do)."
    try:
        fitted = fit_calibration(_estimates(old, after))
    except InputError as error:
        return model, f"The calibration is the starting model's: it cannot be fitted anew ({error})."
    fitted = replace(old, **{name: getattr(fitted, name) for name in ("base_mm", "per_dispersion", "per_network")})
    fitted = replace(fitted, threshold_mm=min(old.threshold_mm, _kept_quantile(fitted, after)))
    text = f"The calibration was fitted on the {len(after)} val registrations of {patients} patients"
    return replace(model, calibration=fitted), f"{text}; its threshold is not above the starting model's."


def _estimates(old: Calibration, rows: Sequence[Row]) -> ErrorEstimates:
    """Return true SRE and what the starting model's calibration makes use of."""
    sre = np.array([row.after.sre_mm for row in rows])
    dispersion = [row.expectation.dispersion_mm for row in rows]
    network = [row.expectation.network_sre_mm for row in rows]

    def column(values: Sequence[float | None], used: bool) -> np.ndarray | None:
        return np.array(values, dtype=np.float64) if used and None not in values else None

    return ErrorEstimates(sre, column(dispersion, old.per_dispersion > 0), column(network, old.per_network > 0))


def _kept_quantile(calibration: Calibration, rows: Sequence[Row]) -> float:
    known = [calibration.expected_sre_mm(row.expectation.dispersion_mm, row.expectation.network_sre_mm) for row in rows]
    return float(np.quantile([value for value in known if value is not None], 0.8))


def adapted_card(card: Card, origin: Origin, references: References, comparison: Comparison, calibration: str) -> Card:
    """Return the card of an adapted model, on the base of the starting model's."""
    kinds = ", ".join(f"{count} {KINDS[kind]}" for kind, count in references.counts().items() if count)
    one = comparison
    rows = tuple(
        (name, str(errors.count), f"{errors.mean_mm:.2f} ± {errors.sd_mm:.2f}")
        for name, errors in (("at the initialisations", one.initial), ("before", one.before), ("after", one.after))
    )
    description = (
        f"{one.patients} val patients of the site, from U[0, 20] mm, run as in use; {one.text()}. References: {kinds}. "
        "The weights were chosen among a few validations on the same patients: the numbers are a little too good."
    )
    return replace(
        card,
        name=origin.name,
        summary=f"`{origin.source}`, adapted to {origin.pairs} pairs of {origin.patients} patients. {RESEARCH}",
        data=f"{origin.pairs} pairs of {origin.patients} patients of one site; before that: {card.data}",
        command="crossalign adapt",
        seed=str(origin.seed),
        hardware="",
        selection="val SRE on patients of the site that were not trained on",
        measured=Measurements(("val patients", "n", "SRE (mm)"), rows, description),
        expected_error=calibration,
        limits=(
            f"It was adapted to one site, and is not known to be better than `{origin.source}` elsewhere.",
            *card.limits,
        ),
    )


def kept_card(card: Card, origin: Origin, verdict: str) -> Card:
    """Return the card of a starting model that is kept."""
    return replace(
        card,
        name=origin.name,
        summary=f"`{origin.source}` as it was: an adaptation to {origin.pairs} pairs was tried. {card.summary}",
        details=(*card.details, ("adaptation", verdict)),
    )
