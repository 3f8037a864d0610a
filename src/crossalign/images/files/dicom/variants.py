"""Several volumes in one series: echoes, b-values, time points, kinds of image; told apart, listed and chosen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossalign.errors import ImageError
from crossalign.images.files.dicom.header import Frame
from crossalign.input import excerpt

PLACE_DECIMALS = 2  # of positions, mm: slices nearer than this are at one place
LISTED = 12
MOST_TOGETHER = 2  # header elements that tell volumes apart
CHOOSE = (
    "choose one with --series SERIES:VOLUME, as {number}:2 (series= in Python; --fixed-series and so on of two images)"
)
SINGULAR = {"echoes": "echo", "kinds of image": "kind of image", "parts of a complex image": "part of a complex image"}
UNITS = {"echo times": " ms", "trigger times": " ms", "b-values": " s/mm2"}
# What is said first where several elements tell the volumes apart: a number that people know them by.
ORDER = (
    "echo times",
    "b-values",
    "time points",
    "parts of a complex image",
    "kinds of image",
    "echoes",
    "trigger times",
)


@dataclass(frozen=True)
class Variant:
    """One of the volumes of a series: its slices, and what tells it from the others."""

    label: str
    frames: tuple[Frame, ...]


def variants_of(frames: Sequence[Frame]) -> tuple[Variant, ...]:
    """Return the volumes of slices of which several lie at each place; () where no header element tells them apart.

    Each volume has one slice at each place. The fewest header elements that do so are taken, two at most.
    """
    places = {_place(frame) for frame in frames}
    if len(places) < 2 or len(places) == len(frames) or len(frames) % len(places):
        return ()
    values = [dict(frame.variants) for frame in frames]
    words = sorted({word for one in values for word in one}, key=lambda word: (_rank(word), word))
    for count in range(1, MOST_TOGETHER + 1):
        for chosen in itertools.combinations(words, count):
            keys = [tuple(one.get(word, "") for word in chosen) for one in values]
            groups = {key: [frame for frame, own in zip(frames, keys, strict=True) if own == key] for key in set(keys)}
            if all(len(group) == len({_place(one) for one in group}) == len(places) for group in groups.values()):
                return tuple(Variant(_label(chosen, key), tuple(groups[key])) for key in sorted(groups, key=_numeric))
    return ()


def chosen_variant(frames: Sequence[Frame], number: int | None, name: str, series_number: int) -> tuple[Frame, ...]:
    """Return the slices of the volume of this number, from 1; all of them where the series holds one volume.

    Raises ImageError where it holds several and none is chosen, with a list of them, and for a number that is none.
    """
    found = variants_of(frames)
    if not found:
        if number in (None, 1):
            return tuple(frames)
        raise ImageError(f"{name}: volume {number} was asked for, but the series is not known to hold several volumes")
    listed = "; ".join(f"{rank}: {one.label}" for rank, one in enumerate(found[:LISTED], 1))
    listed += f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
    what = f"{name}: holds {len(found)} volumes of {len(found[0].frames)} slices"
    if number is None:
        raise ImageError(f"{what}, expected one: {listed}; {CHOOSE.format(number=series_number)}")
    if not 1 <= number <= len(found):
        raise ImageError(f"{what}, got volume {number}, expected one of: {listed}")
    return found[number - 1].frames


def _place(frame: Frame) -> tuple[float, ...]:
    return tuple(np.round(frame.position_mm, PLACE_DECIMALS).tolist()) if frame.position_mm is not None else ()


def _rank(word: str) -> int:
    return ORDER.index(word) if word in ORDER else len(ORDER)


def _label(words: Sequence[str], values: Sequence[str]) -> str:
    parts = [
        f"{SINGULAR.get(word, word.removesuffix('s'))} {excerpt(value, 40) or 'not given'}{UNITS.get(word, '')}"
        for word, value in zip(words, values, strict=True)
    ]
    return ", ".join(parts)


def _numeric(key: Sequence[str]) -> list[tuple[float, str]]:
    """Order values as numbers where they are, else as text."""
    return [(float(value), "") if _is_number(value) else (np.inf, value) for value in key]


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
