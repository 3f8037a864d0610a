"""Values of a scan as the 16-bit numbers of DICOM, with the slope and intercept that lead back to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGNED, UNSIGNED = (-32768, 32767), (0, 65535)
WIDE = 1000.0  # a range of values of MR that whole numbers are fine enough for


@dataclass(frozen=True)
class Quantisation:
    """value = stored * slope + intercept, within half a slope; both are numbers that a decimal string holds exactly."""

    slope: float
    intercept: float
    signed: bool

    @staticmethod
    def of(voxels: NDArray[np.float32], kind: str) -> Quantisation:
        """Choose them for finite values of an image of a kind (MR, CT, PT, or nothing).

        Whole numbers of 16 bits stay as they are. MR is rounded to them where that loses less than a thousandth of its
        range, since some viewers ignore the slope of MR. PET demands an intercept of 0.
        """
        low, high = float(voxels.min()), float(voxels.max())
        for ends in (UNSIGNED, SIGNED):
            if ends[0] <= low and high <= ends[1] and ((kind == "MR" and high - low >= WIDE) or _are_whole(voxels)):
                return Quantisation(1.0, 0.0, ends is SIGNED)
        if kind == "PT":
            signed = low < 0
            largest = max(-low, high) / (SIGNED if signed else UNSIGNED)[1]
            return Quantisation(_as_written(largest) or 1.0, 0.0, signed)
        return Quantisation(_as_written((high - low) / UNSIGNED[1]) or 1.0, _as_written(low), signed=False)

    def stored(self, values: NDArray[np.float32]) -> NDArray[np.integer]:
        """Return the numbers that are nearest to the values."""
        ends, kind = (SIGNED, np.int16) if self.signed else (UNSIGNED, np.uint16)
        numbers = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        return numbers.clip(*ends).astype(kind)


def decimal(value: float) -> str:
    """Write a number as a decimal string (DS), of 16 characters at most."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value) + 0.0)


def _as_written(value: float) -> float:
    return float(decimal(value))


def _are_whole(voxels: NDArray[np.float32]) -> bool:
    return all(bool((part == np.rint(part)).all()) for part in voxels)
