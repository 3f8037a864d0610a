"""Files of named structures: which of them is meant, by name or number; and how those of a format are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch

from crossalign.errors import ImageError
from crossalign.geometry import Grid
from crossalign.images.image import LabelMap
from crossalign.input import WHOLE, excerpt

Label: TypeAlias = int | str | Sequence[int]
LISTED_STRUCTURES = 20


@dataclass(frozen=True)
class Structure:
    """One structure of a file: the number and the name by which it is chosen."""

    number: int
    name: str

    def __str__(self) -> str:
        """Say both."""
        return f"{self.number} '{excerpt(self.name, 60)}'"


@runtime_checkable
class StructureFile(Protocol):
    """A file of structures that may overlap, each drawn for itself."""

    @property
    def name(self) -> str:
        """What messages call the file."""
        ...

    @property
    def space(self) -> str:
        """What tells its physical space from others, where the file says it (see Image)."""
        ...

    @property
    def structures(self) -> tuple[Structure, ...]:
        """What it holds, in its order."""
        ...

    def drawn(self, numbers: Sequence[int], image: Grid | None) -> list[LabelMap]:
        """Draw structures, each as a label map of 0 and 1, all on one grid; raises ImageError.

        `image` is the grid of the image that the mask is meant for, where it is known: contours are drawn on it.
        """
        ...


def structure_mask(file: StructureFile, label: Label | None, image: Grid | None, advice: str) -> LabelMap:
    """Draw the structure that `label` means (several become one); without one the file must hold one only.

    Raises ImageError that lists the structures where none, or no single one, is meant.
    """
    numbers = _meant(file, label, advice)
    maps = file.drawn(numbers, image)
    union = torch.stack([one.labels != 0 for one in maps]).any(0) if len(maps) > 1 else maps[0].labels != 0
    if not bool(union.any()):
        raise ImageError(f"{file.name}: the structure is empty: choose another one; {_listed(file)}")
    return LabelMap(union.long(), maps[0].grid, file.name, file.space)


def structure_labels(file: StructureFile) -> LabelMap:
    """Draw all structures, each with its number; raises ImageError where two of them overlap."""
    numbers = [structure.number for structure in file.structures]
    maps = file.drawn(numbers, None)
    labels = torch.zeros_like(maps[0].labels)
    for number, one in zip(numbers, maps, strict=True):
        here = one.labels != 0
        if bool((here & (labels != 0)).any()):
            raise ImageError(
                f"{file.name}: its structures overlap, which one label map cannot hold: write the one that is meant to "
                f"a file of its own; {_listed(file)}"
            )
        labels[here] = number
    return LabelMap(labels, maps[0].grid, file.name)


def _meant(file: StructureFile, label: Label | None, advice: str) -> list[int]:
    if not file.structures:
        raise ImageError(f"{file.name}: holds no structure, expected one or more: draw it, and export it again")
    if label is None:
        if len(file.structures) > 1:
            raise ImageError(f"{file.name}: {_listed(file)}: several structures, expected one: {advice}")
        return [file.structures[0].number]
    if isinstance(label, str):
        whole = _named(file, label)
        return [whole] if whole is not None else [_one(file, part.strip()) for part in label.split(",")]
    return [_one(file, str(number)) for number in ([label] if isinstance(label, int) else label)]


def _one(file: StructureFile, text: str) -> int:
    found = _named(file, text)
    if found is None:
        raise ImageError(f"{file.name}: holds no structure '{excerpt(text, 40)}': {_listed(file)}: choose one of them")
    return found


def _named(file: StructureFile, text: str) -> int | None:
    """Return the number of the structure of this number or name; else of the only one that has it in its name."""
    if WHOLE.fullmatch(text) and int(text) in {one.number for one in file.structures}:
        return int(text)
    wanted = text.strip().casefold()
    for matches in (
        lambda name: name == text,
        lambda name: name.casefold() == wanted,
        lambda n: wanted in n.casefold(),
    ):
        found = [one.number for one in file.structures if wanted and matches(one.name.strip())]
        if len(found) == 1:
            return found[0]
    return None


def _listed(file: StructureFile) -> str:
    shown = ", ".join(map(str, file.structures[:LISTED_STRUCTURES]))
    rest = len(file.structures) - LISTED_STRUCTURES
    return f"it holds {shown}" + (f" and {rest} more" if rest > 0 else "")
