"""Whether an adapted model is better than the one that it came from: paired errors, patients as the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crossalign.data import Case
from crossalign.evaluation import Evaluation, Row, evaluate
from crossalign.models import Model
from crossalign.registration import NetworkRegistration

BEFORE, AFTER = "before", "after"
INITIALISATIONS = "0-20"
LEAST_GAIN_MM = 0.05  # less is of no use to anyone
CONFIDENCE = 0.9  # one-sided: of ten models that are no better, one would be taken for better


@dataclass(frozen=True)
class Errors:
    """SRE (mm) of registrations: how many, mean and standard deviation (n - 1; NaN for one)."""

    count: int
    mean_mm: float
    sd_mm: float

    @staticmethod
    def of(values_mm: Sequence[float]) -> Errors:
        """Describe errors."""
        sd = float(np.std(values_mm, ddof=1)) if len(values_mm) > 1 else math.nan
        return Errors(len(values_mm), float(np.mean(values_mm)), sd)

    def text(self) -> str:
        """Return them as text."""
        return f"{self.mean_mm:.2f} ± {self.sd_mm:.2f} mm (n = {self.count})"


@dataclass(frozen=True)
class Comparison:
    """Errors from drawn initialisations without a model, before the adaptation and after it; TRE where known.

    `gain_mm` is the mean over patients of what the SRE became smaller by, `noise_mm` how much of it may be chance: the
    gain counts where it is larger. `is_better` says whether it is.
    """

    patients: int
    initial: Errors
    before: Errors
    after: Errors
    gain_mm: float
    noise_mm: float
    before_tre_mm: float = math.nan
    after_tre_mm: float = math.nan

    @property
    def is_better(self) -> bool:
        """Whether the adapted model is better by more than chance, and by so much that it matters (0.05 mm)."""
        return self.gain_mm > max(self.noise_mm, LEAST_GAIN_MM)

    def verdict(self) -> str:
        """Say that it is better."""
        return "adapted: on patients that it was not trained on the error is smaller by more than chance"

    def text(self) -> str:
        """Return the gain in words."""
        return (
            f"smaller by {self.gain_mm:.2f} mm on average over {self.patients} patients, "
            f"of which up to {self.noise_mm:.2f} mm may be chance"
        )


def compare(
    cases: Sequence[Case],
    models: tuple[Model, Model],
    count: int,
    seed: int,
    progress: Callable[[int, int, Row], None] | None = None,
) -> tuple[Comparison, Evaluation]:
    """Register every case from `count` initialisations of 0 to 20 mm with both models, as they are run in use."""
    methods = {name: NetworkRegistration(model, name) for name, model in zip((BEFORE, AFTER), models, strict=True)}
    evaluation = evaluate(cases, methods, INITIALISATIONS, count, seed, progress)
    return comparison_of(evaluation.rows), evaluation


def comparison_of(rows: Sequence[Row]) -> Comparison:
    """Compare the rows of the methods `before` and `after`, which are paired by case and initialisation."""
    before, after = ([row for row in rows if row.method == name] for name in (BEFORE, AFTER))
    gains = [one.after.sre_mm - other.after.sre_mm for one, other in zip(before, after, strict=True)]
    patients = [row.patient for row in before]
    gain, noise = gain_and_noise_mm(gains, patients)
    return Comparison(
        patients=len(set(patients)),
        initial=Errors.of([row.before.sre_mm for row in before]),
        before=Errors.of([row.after.sre_mm for row in before]),
        after=Errors.of([row.after.sre_mm for row in after]),
        gain_mm=gain,
        noise_mm=noise,
        before_tre_mm=_mean_tre_mm(before),
        after_tre_mm=_mean_tre_mm(after),
    )


def gain_and_noise_mm(gains_mm: Sequence[float], patients: Sequence[str]) -> tuple[float, float]:
    """Return the mean of the patients' mean gains, and the half-width of its one-sided 90 % interval (Student's t).

    Of one patient the registrations are the samples, which are not independent: the interval is too narrow then.
    """
    from scipy.stats import t

    names = sorted(set(patients))
    values = np.asarray(gains_mm, dtype=np.float64)
    if len(names) > 1:
        whose = np.asarray(patients, dtype=np.str_)
        values = np.array([values[whose == name].mean() for name in names])
    if len(values) < 2:
        return float(values.mean()), math.inf
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()), error * float(t.ppf(CONFIDENCE, len(values) - 1))


def _mean_tre_mm(rows: Sequence[Row]) -> float:
    known = [row.after.tre_mm for row in rows if not math.isnan(row.after.tre_mm)]
    return float(np.mean(known)) if known else math.nan
