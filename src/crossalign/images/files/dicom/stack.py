"""From slices to a volume: their order along the normal, the distance between them, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import ImageError
from crossalign.images.files.dicom.header import Frame

Vectors = NDArray[np.float64]
SAME_DIRECTION = 1e-3  # of the unit vectors along rows and columns: 0.06 degrees
SAME_SPACING = 1e-3
SAME_PLACE_MM = 1e-3
EVEN = 0.05  # of the distance between slices: positions are rounded
SIDEWAYS_PIXEL = 0.25
LARGEST_GAP = 3.0  # in distances between slices: what is interpolated across
MOST_MADE = 0.25  # of the slices of the result that no slice of the series gives
CONVERT = "convert the series with dcm2niix and give the volume that is meant"


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in the order of the volume. `affine` (4, 4) maps voxel indices to LPS mm, sheared under a tilted gantry.

    `sources` says where slice k of the volume comes from: a place among the frames, between two where it is a fraction.
    """

    frames: tuple[Frame, ...]
    affine: Vectors
    sources: Vectors
    notes: tuple[str, ...]


def stacked(frames: Sequence[Frame], thickness_mm: float | None, name: str) -> Stack:
    """Order slices along their normal as ITK's series reader does; raises ImageError where they make no volume."""
    positions, rows, columns, spacing = slice_geometry(frames, name)
    normal = np.cross(rows, columns)
    order = np.argsort(positions @ normal, kind="stable")
    positions, ordered = positions[order], tuple(frames[int(index)] for index in order)
    depths = positions @ normal
    gaps = np.diff(depths)
    _check_distinct(ordered, gaps, name)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = rows * spacing[1], columns * spacing[0], positions[0]
    if len(ordered) == 1:
        affine[:3, 2] = normal * (thickness_mm or 1.0)
        notes: tuple[str, ...] = (
            () if thickness_mm else ("the header gives no thickness of its one slice: taken as 1 mm",)
        )
        return Stack(ordered, affine, np.zeros(1), notes)
    _check_straight(positions, depths, float(min(spacing)), name)
    places, step, notes = _even_places(depths, gaps, name)
    affine[:3, 2] = (positions[-1] - positions[0]) / (depths[-1] - depths[0]) * step
    return Stack(ordered, affine, places, notes)


def slice_geometry(frames: Sequence[Frame], name: str) -> tuple[Vectors, Vectors, Vectors, tuple[float, float]]:
    """Return positions (n, 3), the unit vectors along rows and columns, and the spacing (between rows, columns).

    Raises ImageError where a slice lacks one of them, or they differ in direction or spacing.
    """
    positions, orientations, spacings = (
        [value for value in values if value is not None]
        for values in zip(*((frame.position_mm, frame.orientation, frame.spacing_mm) for frame in frames), strict=True)
    )
    words = ("position", "orientation", "pixel spacing")
    lacking = [
        w for w, values in zip(words, (positions, orientations, spacings), strict=True) if len(values) < len(frames)
    ]
    if lacking:
        raise ImageError(
            f"{name}: slices without {' and '.join(lacking)} in the header, expected the place of each in the patient: "
            "they make no volume; export the series again from its source, not as pictures"
        )
    vectors = np.array(orientations).reshape(-1, 2, 3)
    lengths = np.linalg.norm(vectors, axis=2)
    if np.abs(lengths - 1).max() > 0.01 or np.abs((vectors[:, 0] * vectors[:, 1]).sum(1)).max() > 0.01:
        raise ImageError(f"{name}: the rows and columns of a slice are not perpendicular unit vectors: mend the header")
    if np.abs(vectors - vectors[0]).max() > SAME_DIRECTION:
        count = len({tuple(row) for row in vectors.reshape(-1, 6).round(2).tolist()})
        raise ImageError(
            f"{name}: the slices lie in {count} directions, as those of a localizer do, or of several series in one: "
            "not a volume; name a series whose slices are parallel"
        )
    steps = np.array(spacings)
    if not (steps > 0).all() or np.abs(steps / steps[0] - 1).max() > SAME_SPACING:
        raise ImageError(
            f"{name}: the pixel spacing is not positive or differs between slices: not one volume; {CONVERT}"
        )
    rows = vectors[0, 0] / lengths[0, 0]
    columns = vectors[0, 1] - rows * (rows @ vectors[0, 1])
    return np.array(positions), rows, columns / np.linalg.norm(columns), (float(steps[0, 0]), float(steps[0, 1]))


def _check_distinct(frames: Sequence[Frame], gaps: Vectors, name: str) -> None:
    """Raise ImageError where slices lie at one place, and say what they differ in."""
    if not len(gaps) or gaps.min() >= SAME_PLACE_MM:
        return
    places = 1 + int((gaps >= SAME_PLACE_MM).sum())
    values: dict[str, set[str]] = {}
    for frame in frames:
        for word, value in frame.variants:
            values.setdefault(word, set()).add(value)
    most = len(frames) / places
    words = [
        word for word, different in values.items() if 1 < len(different) <= 2 * most or places == 1 < len(different)
    ]
    differ = f" of different {' and '.join(dict.fromkeys(words))}" if words else ""
    raise ImageError(
        f"{name}: {len(frames)} slices{differ} lie at {places} {'place' if places == 1 else 'places'}, expected one at "
        f"each: not one volume; {CONVERT}"
    )


def _check_straight(positions: Vectors, depths: Vectors, pixel_mm: float, name: str) -> None:
    """Raise ImageError where the slices do not follow one another along a straight line."""
    fractions = (depths - depths[0]) / (depths[-1] - depths[0])
    line = positions[0] + fractions[:, None] * (positions[-1] - positions[0])
    sideways = float(np.linalg.norm(positions - line, axis=1).max())
    if sideways > SIDEWAYS_PIXEL * pixel_mm:
        raise ImageError(
            f"{name}: the slices shift sideways by up to {sideways:.2g} mm from a straight line: not one volume; "
            f"{CONVERT}"
        )


def _even_places(depths: Vectors, gaps: Vectors, name: str) -> tuple[Vectors, float, tuple[str, ...]]:
    """Return where the slices of an even volume come from, their distance (mm, along the normal), and what to say."""
    count = len(depths)
    mean = float(depths[-1] - depths[0]) / (count - 1)
    if np.abs(depths - depths[0] - mean * np.arange(count)).max() <= EVEN * mean:
        return np.arange(count, dtype=np.float64), mean, ()
    usual = float(np.median(gaps))
    lowest, highest = float(gaps.min()), float(gaps.max())
    between = f"the slices are {lowest:.3g} to {highest:.3g} mm apart, usually {usual:.3g} mm"
    steps = round(float(depths[-1] - depths[0]) / usual)
    if highest > LARGEST_GAP * usual or steps > 4 * count:
        raise ImageError(f"{name}: {between}: slices are missing; copy the series again from its source, all of it")
    step = float(depths[-1] - depths[0]) / steps
    targets = depths[0] + step * np.arange(steps + 1)
    places = np.interp(targets, depths, np.arange(count, dtype=np.float64))
    made = int((np.abs(targets[:, None] - depths).min(1) > EVEN * step).sum())
    if abs(highest / usual - round(highest / usual)) < EVEN and made == steps + 1 - count:
        if made > max(1, MOST_MADE * (steps + 1)):
            raise ImageError(f"{name}: {between}: {made} slices are missing; copy the series again from its source")
        what = f"{made} missing {'slice was' if made == 1 else 'slices were'} interpolated from the neighbours"
    else:
        what = f"resampled to {steps + 1} slices every {step:.3g} mm"
    return places, step, (f"{between}: {what}",)
