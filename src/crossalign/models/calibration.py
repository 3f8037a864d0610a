"""The calibration of a model: what its evidence makes of the SRE to expect, and up to where a result is trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from crossalign.errors import InputError

MOST = 1e6  # of a calibration's numbers
NO_EVIDENCE: Mapping[str, float] = {}


@dataclass(frozen=True)
class EvidenceTerm:
    """What one piece of evidence adds to the expected SRE, mm: slope times how far it is beyond a value.

    `falls`: it counts below `beyond`, not above. What is farther than `largest` beyond says no more. The slope is not
    negative: worse evidence never means a smaller expected error.
    """

    name: str
    slope: float
    beyond: float
    largest: float
    falls: bool = False

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and abs(value) <= MOST for value in (self.slope, self.beyond, self.largest)):
            raise InputError(f"the calibration's term '{self.name}' needs finite numbers within {MOST:g}")
        if self.slope < 0 or self.largest <= 0:
            raise InputError(f"the calibration's term '{self.name}' needs a slope of 0 or more and a largest over 0")

    def excess(self, value: float) -> float:
        """Return how far a value is beyond, from 0 to `largest`; a NaN is as bad as can be."""
        if math.isnan(value):
            return self.largest
        return min(self.largest, max(0.0, self.beyond - value if self.falls else value - self.beyond))

    def adds_mm(self, evidence: Mapping[str, float]) -> float:
        """Return what is added to the expected SRE, mm; 0 where there is no such evidence."""
        return self.slope * self.excess(evidence[self.name]) if self.name in evidence else 0.0


@dataclass(frozen=True)
class Calibration:
    """The SRE to expect, mm: base_mm + per_dispersion * dispersion + per_network * the network's own, and the terms.

    No slope is negative: more dispersion never means a smaller expected error. A result whose expected SRE is over
    `threshold_mm` is not to be trusted. Of the results that are trusted the fraction `bound_probability` has a true SRE
    under `bound_factor` times the expected one, where these are given: the factor is the quantile of their ratio on
    results whose answer is known (split conformal prediction: Vovk et al. 2005, normalised as by Lei et al. 2018).
    `crossalign calibrate` fits all of it on cases whose answer is known. Files of earlier versions hold neither terms
    nor a bound.
    """

    base_mm: float
    per_dispersion: float
    per_network: float
    threshold_mm: float
    terms: tuple[EvidenceTerm, ...] = ()
    bound_factor: float | None = None
    bound_probability: float | None = None

    def __post_init__(self) -> None:
        numbers = {
            name: value for name, value in vars(self).items() if name != "terms" and not name.startswith("bound_")
        }
        if not all(math.isfinite(value) for value in numbers.values()):
            raise InputError(f"a calibration needs finite numbers, got {numbers}")
        if min(self.per_dispersion, self.per_network) < 0 or self.threshold_mm <= 0:
            raise InputError(f"a calibration's slopes must be 0 or more and its threshold over 0 mm, got {numbers}")
        if max(abs(value) for value in numbers.values()) > MOST:
            raise InputError(f"a calibration's numbers must be within {MOST:g}, got {numbers}")
        factor, probability = self.bound_factor, self.bound_probability
        if (factor is None) != (probability is None):
            raise InputError("a calibration's bound needs both a factor and a probability")
        if factor is not None and not (0 < factor <= MOST and 0 < (probability or 0) < 1):
            raise InputError(
                f"a calibration's bound needs a factor over 0 and a probability between 0 and 1, got {factor} and "
                f"{probability}"
            )

    def expected_sre_mm(
        self, dispersion_mm: float | None, network_mm: float | None, evidence: Mapping[str, float] = NO_EVIDENCE
    ) -> float | None:
        """Return the SRE to expect, mm, 0 or more; None where dispersion or network's expectation is missing.

        A term whose evidence is missing adds nothing: some evidence needs a mask, or a network of its own.
        """
        expected = self.base_mm
        for slope, value in ((self.per_dispersion, dispersion_mm), (self.per_network, network_mm)):
            if slope > 0:
                if value is None:
                    return None
                expected += slope * value
        expected += sum(term.adds_mm(evidence) for term in self.terms)
        return expected if math.isnan(expected) else max(0.0, expected)

    def bound_mm(self, expected_mm: float) -> float | None:
        """Return the SRE, mm, under which the true one lies with `bound_probability`; None without a bound.

        It holds for results that are trusted.
        """
        return None if self.bound_factor is None else self.bound_factor * expected_mm

    def weightiest(self, evidence: Mapping[str, float], least_mm: float) -> tuple[str, ...]:
        """Name the evidence that adds `least_mm` or more to the expected SRE, that which adds most first."""
        added: dict[str, float] = {}
        for term in self.terms:
            added[term.name] = added.get(term.name, 0.0) + term.adds_mm(evidence)
        return tuple(name for name in sorted(added, key=lambda one: -added[one]) if added[name] >= least_mm)
