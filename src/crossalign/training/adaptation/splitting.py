"""Which patients a model is adapted on, and which it is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from crossalign.data import ScanPair
from crossalign.errors import InputError
from crossalign.input import excerpt
from crossalign.training.adaptation.references import KINDS, ReferencedPair, References

FEWEST_PATIENTS, FEWEST_VAL = 4, 2
MORE = "give more pairs, or use the model as it is"


@dataclass(frozen=True)
class Split:
    """Pairs to train on and pairs to measure on; no patient is in both."""

    train: tuple[ReferencedPair, ...]
    val: tuple[ReferencedPair, ...]

    def val_patients(self) -> int:
        """Count the patients that are measured on."""
        return len({one.pair.patient for one in self.val})

    def notes(self) -> tuple[str, ...]:
        """Say what keeps the measurement from being a proof."""
        notes = []
        if self.val_patients() == 1:
            notes.append(
                "one val patient: its registrations are not independent, and the gain is less sure than it looks"
            )
        own = sum(one.kind == "model" for one in self.val)
        if own:
            notes.append(
                f"{own} of {len(self.val)} val references are the starting model's own answers: measured there is how "
                "well the models agree with them, not how near they are to the truth; outline the moving structure"
            )
        return tuple(notes)

    def train_patients(self) -> int:
        """Count the patients that are trained on."""
        return len({one.pair.patient for one in self.train})


def check_patients(pairs: Sequence[ScanPair]) -> None:
    """Raise InputError where there are too few patients to split, whatever references are found."""
    patients = {pair.patient for pair in pairs}
    if not any(pair.split for pair in pairs) and len(patients) < FEWEST_PATIENTS:
        raise _too_few(len(patients), "")


def _too_few(patients: int, more: str) -> InputError:
    return InputError(
        f"an adaptation needs {FEWEST_PATIENTS} patients or more ({FEWEST_VAL} of them to measure on), got "
        f"{patients}{more}: {MORE}"
    )


def split_pairs(references: References, fraction: float, seed: int) -> Split:
    """Split as the pairs say, or draw a fraction of the patients (two at least) to measure on from a seed.

    Drawn are patients whose references are the most certain, as far as they go: errors are measured against those.
    Raises InputError for too few patients, or where some pairs have a split and others none.
    """
    found = references.found
    given = [bool(one.pair.split) for one in found]
    if any(given):
        return _given_split(found, all(given))
    patients = sorted({one.pair.patient for one in found})
    if len(patients) < FEWEST_PATIENTS:
        raise _too_few(len(patients), f" with a reference{_without(references)}")
    generator = torch.Generator().manual_seed(seed)
    drawn = [patients[number] for number in torch.randperm(len(patients), generator=generator).tolist()]
    ordered = sorted(drawn, key=lambda patient: max(_rank(one) for one in found if one.pair.patient == patient))
    count = max(FEWEST_VAL, min(round(fraction * len(patients)), len(patients) - FEWEST_VAL))
    val = set(ordered[:count])
    return Split(
        tuple(one for one in found if one.pair.patient not in val),
        tuple(one for one in found if one.pair.patient in val),
    )


def _without(references: References) -> str:
    if not (left_out := references.left_out):
        return ""
    first = f"{excerpt(left_out[0].name)}: {left_out[0].reason}"
    return f" ({len(left_out)} pairs have none, the first: {first}; a mask of the moving structure gives one)"


def _rank(one: ReferencedPair) -> int:
    return list(KINDS).index(one.kind)


def _given_split(found: Sequence[ReferencedPair], complete: bool) -> Split:
    if not complete:
        name = next(one.pair.name for one in found if not one.pair.split)
        raise InputError(f"'{name}' has no split, and others have one: give every pair a split, or none")
    train, val = (tuple(one for one in found if one.pair.split == name) for name in ("train", "val"))
    for name, part in (("train", train), ("val", val)):
        if not part:
            raise InputError(f"no pair with a reference is of the split '{name}': {MORE}, or leave the splits out")
    return Split(train, val)
