"""The model that an adaptation ends with: its calibration, its card, its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crossalign.evaluation import Row
from crossalign.evaluation.evidence_fit import conformal_factor
from crossalign.models import Card, Model
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
    """Set the calibration right on the adapted model's val registrations; also say in words what was done.

    The starting model's is moved by a constant, so that it is right on average, and its bound is found anew. What it
    makes of failures, which val registrations are not, and its threshold stay. It is kept as it was where the rows are
    too few, or where the references are `uncertain`: the model's own answers, beside which its errors look too small.
    """
    old, kept = model.calibration, "The calibration is the starting model's"
    known = [
        (row.patient, row.after.sre_mm, row.expectation.expected_sre_mm)
        for row in rows
        if row.method == AFTER and not row.error and row.expectation.expected_sre_mm is not None
    ]
    patients = len({patient for patient, _, _ in known})
    if old is None:
        return model, "The starting model has no calibration, and the adapted one neither."
    if uncertain:
        return model, f"{kept}: the val references are answers of that model itself."
    if patients < FEWEST_PATIENTS or len(known) < FEWEST_REGISTRATIONS:
        needed = f"{FEWEST_REGISTRATIONS} registrations of {FEWEST_PATIENTS}"
        text = (
            f"{kept}: {len(known)} registrations of {patients} val patients are too few to mend it, {needed} would do."
        )
        return model, text
    true = np.array([sre for _, sre, _ in known])
    before = np.array([expected for _, _, expected in known], dtype=np.float64)
    shift = float((true - before).mean())
    calibration = replace(old, base_mm=old.base_mm + shift)
    if old.bound_probability is not None:
        expected = np.maximum(before + shift, 0)
        trusted = expected <= old.threshold_mm
        factor = conformal_factor(true[trusted], expected[trusted], old.bound_probability)
        bound = (None, None) if factor is None else (factor, old.bound_probability)
        calibration = replace(calibration, bound_factor=bound[0], bound_probability=bound[1])
    text = (
        f"{kept}, moved by {shift:+.2f} mm: so it is right on average on {len(known)} val registrations of {patients} "
        "patients. What it makes of failures, and its threshold, are as they were."
    )
    return replace(model, calibration=calibration), text


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
