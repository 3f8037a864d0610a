"""The initialisation of a registration and the structure that it is about, as options spell them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossalign.errors import InputError, InputWarning, TransformError
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, on_grid_of, read_mask, read_points, read_transform
from crossalign.input import excerpt
from crossalign.registration.initialisation import (
    CENTER,
    HEADER,
    IDENTITY,
    INITIAL_WORDS,
    LANDMARKS,
    MASK_CENTER,
    MASKS,
    Initialisation,
    center_initialisation,
    choose_initialisation,
    mask_center_initialisation,
    masks_initialisation,
)
from crossalign.registration.landmarks import fit_landmarks

LABELS = re.compile(r"-?[0-9]{1,9}")


def transform_file(initial: str | None) -> Path | None:
    """Return the transform file that `--initial` names, or None where it is a word or was not given."""
    return None if initial is None or initial in INITIAL_WORDS else Path(initial)


@dataclass(frozen=True)
class LandmarkFiles:
    """The files of corresponding landmarks in the fixed and the moving image, where given."""

    fixed: Path | None = None
    moving: Path | None = None

    def paths(self) -> tuple[Path, ...]:
        """Return those that were given."""
        return tuple(path for path in (self.fixed, self.moving) if path is not None)


def read_initialisation(
    initial: str | None,
    images: tuple[Image, Image],
    fixed_mask: LabelMap | None,
    moving_mask: LabelMap | None = None,
    landmarks: LandmarkFiles | None = None,
) -> Initialisation:
    """Make the initialisation, fixed to moving, that `--initial` names; without one `choose_initialisation` does.

    Landmark files without `--initial` mean `landmarks`. `masks` has no rotation yet: `found_orientation` adds it.
    Raises InputError for a mask's centre without a mask and for landmarks that cannot be fitted, TransformError for a
    file that is missing or no transform.
    """
    fixed, moving = images
    files = landmarks or LandmarkFiles()
    if initial == LANDMARKS or (initial is None and files.paths()):
        return _from_landmarks(files)
    if files.paths():
        raise InputError(f"--fixed-landmarks and --moving-landmarks are for --initial landmarks, got '{initial}'")
    if initial is None:
        return choose_initialisation(fixed, moving, fixed_mask, moving_mask, prior=None)
    warn_of_namesake(initial, INITIAL_WORDS)
    if initial in (HEADER, IDENTITY):
        return Initialisation(Rigid.identity(), HEADER, "")
    if initial == CENTER:
        return Initialisation(center_initialisation(fixed, moving), CENTER, "")
    if initial in (MASK_CENTER, MASKS) and fixed_mask is None:
        raise InputError(f"--initial {initial} needs --fixed-mask: name the mask, or begin at 'center'")
    if initial == MASKS and moving_mask is None:
        raise InputError("--initial masks needs --moving-mask: name the mask, or begin at 'mask-center'")
    if fixed_mask is not None and moving_mask is not None and initial == MASKS:
        return Initialisation(masks_initialisation(fixed_mask, moving_mask, prior=None), MASKS, "")
    if fixed_mask is not None and initial == MASK_CENTER:
        return Initialisation(mask_center_initialisation(fixed_mask, moving), MASK_CENTER, "")
    return Initialisation(named_transform(initial, INITIAL_WORDS), Path(initial).name, "")


def _from_landmarks(files: LandmarkFiles) -> Initialisation:
    if files.fixed is None or files.moving is None:
        missing = "--fixed-landmarks" if files.fixed is None else "--moving-landmarks"
        raise InputError(f"--initial landmarks needs {missing}: name the file of that image's landmarks")
    fit = fit_landmarks(read_points(files.fixed), read_points(files.moving))
    return Initialisation(fit.fixed_to_moving, LANDMARKS, fit.text(), fit)


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


def parse_labels(text: str | None, option: str = "--mask-label") -> tuple[int, ...] | str | None:
    """Read `--mask-label`: whole numbers with commas between them, else the name as it stands. Raises InputError."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not any(parts) or any(part.startswith("-") and not LABELS.fullmatch(part) for part in parts):
        raise InputError(f"{option} {excerpt(text)}: expected a label such as 1, several such as 1,2, or a name")
    return tuple(int(part) for part in parts) if all(LABELS.fullmatch(part) for part in parts) else text


def read_fixed_mask(path: Path | None, label: str | None, fixed: Image) -> LabelMap | None:
    """Read the structure that matters, on the fixed grid; None without a file. Raises InputError and ImageError."""
    labels = parse_labels(label)
    if path is None:
        if labels is not None:
            raise InputError("--mask-label needs --fixed-mask: name the file that holds the label")
        return None
    return on_grid_of(read_mask(path, labels, image=fixed.grid), fixed)


def read_moving_mask(path: Path | None, label: str | None, moving: Image) -> LabelMap | None:
    """Read the same structure of the moving image, on its grid; None without a file. Raises as `read_fixed_mask`."""
    option = "--moving-mask-label"
    labels = parse_labels(label, option)
    if path is None:
        if labels is not None:
            raise InputError(f"{option} needs --moving-mask: name the file that holds the label")
        return None
    advice = f"choose the structure with {option} N (label=N in Python)"
    return on_grid_of(read_mask(path, labels, advice, image=moving.grid), moving)
