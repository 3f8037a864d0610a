"""The initialisation of a registration and the structure that it is about, as options spell them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from crossalign.errors import InputError, InputWarning, TransformError
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, on_grid_of, read_mask, read_transform
from crossalign.input import excerpt
from crossalign.registration.initialisation import (
    CENTER,
    HEADER,
    IDENTITY,
    INITIAL_WORDS,
    MASK_CENTER,
    Initialisation,
    center_initialisation,
    choose_initialisation,
    mask_center_initialisation,
)

LABELS = re.compile(r"-?[0-9]{1,9}")


def transform_file(initial: str | None) -> Path | None:
    """Return the transform file that `--initial` names, or None where it is a word or was not given."""
    return None if initial is None or initial in INITIAL_WORDS else Path(initial)


def read_initialisation(
    initial: str | None, fixed: Image, moving: Image, fixed_mask: LabelMap | None
) -> Initialisation:
    """Make the initialisation, fixed to moving, that `--initial` names; without one `choose_initialisation` does.

    Raises InputError for a mask's centre without a mask, TransformError for a file that is missing or no transform.
    """
    if initial is None:
        return choose_initialisation(fixed, moving, fixed_mask)
    warn_of_namesake(initial, INITIAL_WORDS)
    if initial in (HEADER, IDENTITY):
        return Initialisation(Rigid.identity(), HEADER, "")
    if initial == CENTER:
        return Initialisation(center_initialisation(fixed, moving), CENTER, "")
    if initial == MASK_CENTER:
        if fixed_mask is None:
            raise InputError("--initial mask-center needs --fixed-mask: name the mask, or begin at 'center'")
        return Initialisation(mask_center_initialisation(fixed_mask, moving), MASK_CENTER, "")
    return Initialisation(named_transform(initial, INITIAL_WORDS), Path(initial).name, "")


def named_transform(name: str, words: Sequence[str]) -> Rigid:
    """Read a transform file; where there is none of this name the error lists the words that are understood too."""
    choices = f"a transform file or one of {', '.join(words)}"
    if not name.strip():
        raise TransformError(f"got an empty name, expected {choices}")
    try:
        return read_transform(name)
    except TransformError as error:
        if Path(name).exists():
            raise
        raise TransformError(f"{error}: expected {choices}") from error


def warn_of_namesake(word: str, words: Sequence[str]) -> None:
    """Warn where a word is also the name of a file: the word is what counts."""
    if word in words and Path(word).exists():
        text = f"'{word}' was read as the word, not as the file of that name: write ./{word} for the file"
        warnings.warn(text, InputWarning, stacklevel=2)


def parse_labels(text: str | None) -> tuple[int, ...] | str | None:
    """Read `--mask-label`: whole numbers with commas between them, else the name as it stands. Raises InputError."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not any(parts) or any(part.startswith("-") and not LABELS.fullmatch(part) for part in parts):
        raise InputError(f"--mask-label {excerpt(text)}: expected a label such as 1, several such as 1,2, or a name")
    return tuple(int(part) for part in parts) if all(LABELS.fullmatch(part) for part in parts) else text


def read_fixed_mask(path: Path | None, label: str | None, fixed: Image) -> LabelMap | None:
    """Read the structure that matters, on the fixed grid; None without a file. Raises InputError and ImageError."""
    labels = parse_labels(label)
    if path is None:
        if labels is not None:
            raise InputError("--mask-label needs --fixed-mask: name the file that holds the label")
        return None
    return on_grid_of(read_mask(path, labels, image=fixed.grid), fixed)


def read_moving_mask(path: Path | None, moving: Image) -> LabelMap | None:
    """Read the same structure of the moving image, on its grid; None without a file. Raises ImageError."""
    if path is None:
        return None
    advice = "write a mask that holds the structure alone"
    return on_grid_of(read_mask(path, advice=advice, image=moving.grid), moving)
