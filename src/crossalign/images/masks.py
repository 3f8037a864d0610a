"""Masks: which structure of a label map is meant, and masks that are stored on another grid of the same space."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch

from crossalign.errors import ImageError, InputWarning
from crossalign.geometry import Grid, inside_fraction
from crossalign.images.files.images import read_label_map
from crossalign.images.files.stored import opened_structures
from crossalign.images.files.structures import Label, structure_mask
from crossalign.images.image import Image, LabelMap, count_where
from crossalign.input import excerpt

CHOOSE = "choose the structure with --mask-label NAME|N (label= in Python)"
SAME_SPACE = "the two are taken to be one space; check that it lies on the structure, or give the mask of this image"
LISTED_LABELS = 12
SAME_MM = 1e-2  # as Grid.agrees_with
SAME_VOXEL = 0.25  # headers of one lattice that differ by less are two roundings of one header
LEAST_INSIDE, WHOLE_INSIDE = 0.5, 0.99
SAMPLED_POINTS = 100_000


def read_mask(
    path: str | os.PathLike[str],
    label: Label | None = None,
    advice: str = CHOOSE,
    image: Grid | None = None,
    memory_limit_bytes: int | None = None,
) -> LabelMap:
    """Read the mask of one structure: every voxel that is not 0, or those of `label` (several are taken together).

    A label is a number; in files whose structures have names (DICOM segmentation, RT structure set, 3D Slicer's) a
    name or a number. Contours are drawn on the grid `image`, where they lie on its slices. Raises ImageError as
    `read_label_map` and `one_structure` do.
    """
    structures = opened_structures(path, memory_limit_bytes)
    if structures is not None:
        return structure_mask(structures, label, image, advice)
    label_map = read_label_map(path, memory_limit_bytes)
    if isinstance(label, str):
        raise ImageError(
            f"{label_map.name}: its labels have no names, got '{excerpt(label, 40)}', expected a number: "
            f"{_listed(label_map)}"
        )
    return one_structure(label_map, label, advice)


def one_structure(label_map: LabelMap, label: int | Sequence[int] | None = None, advice: str = CHOOSE) -> LabelMap:
    """Return the part of a label map with this label, all else 0; without a label the map must hold one only.

    Several labels become one structure, with the first one's value. Raises ImageError that lists the labels where the
    one asked for is not there, or several are and none was asked for.
    """
    labels = label_map.labels
    wanted = () if label is None else (label,) if isinstance(label, int) else tuple(label)
    if not wanted:
        if has_several_labels(label_map):
            raise ImageError(
                f"{label_map.name}: {_listed(label_map)}: several labels, expected one structure: {advice}"
            )
        return label_map
    if 0 in wanted:
        raise ImageError(f"{label_map.name}: label 0 is the background, expected one of: {_listed(label_map)}")
    selected = torch.zeros_like(labels)
    for one in wanted:
        here = labels == one
        if not bool(here.any()):
            raise ImageError(f"{label_map.name}: holds no label {one}: {_listed(label_map)}: choose one of them")
        selected[here] = wanted[0]
    return LabelMap(selected, label_map.grid, label_map.name)


def has_several_labels(label_map: LabelMap) -> bool:
    """Say whether a label map holds more than one value besides 0."""
    labels = label_map.labels
    value = labels.max() if bool(labels.max() != 0) else labels.min()
    return bool(value != 0) and count_where(labels, lambda part: part == value) < label_map.foreground_count()


def on_grid_of(mask: LabelMap, image: Image) -> LabelMap:
    """Resample a mask of the same space onto an image's grid by the nearest voxel, where it is not on it already.

    Says so with an InputWarning. Raises ImageError where the structure does not lie in the image, and where the mask
    has the image's size but another place: then one of the two headers is wrong, and it is not known which.
    """
    if mask.space and image.space and mask.space != image.space:
        text = f"{mask.name}: the mask was drawn in another frame of reference than that of {image.name}: {SAME_SPACE}"
        warnings.warn(text, InputWarning, stacklevel=2)
    if mask.grid.agrees_with(image.grid):
        return mask
    exact = _same_positions(mask.grid, image.grid, SAME_MM)
    rounded = not exact and _same_positions(mask.grid, image.grid, SAME_VOXEL * min(image.grid.spacing_mm))
    if not (exact or rounded) and sorted(mask.grid.shape) == sorted(image.grid.shape):
        raise ImageError(
            f"{not_on_grid(mask, image)}: both have the same number of voxels, so one header may be wrong: where the "
            f"mask was drawn on this image give it the image's header, or {resampling_advice(mask, image)}"
        )
    inside = inside_fraction(mask.sampled_points_mm(SAMPLED_POINTS), image.grid)
    if inside < LEAST_INSIDE:
        raise ImageError(
            f"{not_on_grid(mask, image)}, and only {inside:.0%} of its structure lies in it: "
            "give the mask of this image, in the same space"
        )
    resampled = mask.resampled(image.grid)
    if not bool((resampled.labels != 0).any()):
        raise ImageError(
            f"{not_on_grid(mask, image)}, whose voxels all miss the structure: draw the mask on the image's grid"
        )
    _warn(mask, image, "exact: the same voxels in another order or region" if exact else "nearest voxel", inside)
    return resampled


def not_on_grid(mask: LabelMap, image: Image) -> str:
    """Say how a mask's grid differs from its image's."""
    return (
        f"{mask.name}: the mask does not lie on the grid of {image.name}: "
        f"got {_described(mask.grid)}, expected {_described(image.grid)}"
    )


def resampling_advice(mask: LabelMap, image: Image) -> str:
    """Say how to resample a mask onto its image's grid."""
    return (
        "resample it by its own header: "
        f"crossalign apply identity {mask.name} --reference {image.name} --label -o NEW_MASK.nii.gz"
    )


def _warn(mask: LabelMap, image: Image, how: str, inside: float) -> None:
    text = f"{mask.name}: the mask was stored on another grid and was resampled to that of {image.name} ({how})"
    if inside < WHOLE_INSIDE:
        text += f"; {1 - inside:.0%} of its structure lies outside the image and was left out"
    warnings.warn(text, InputWarning, stacklevel=3)


def _same_positions(a: Grid, b: Grid, tolerance_mm: float) -> bool:
    """Whether each voxel centre of `a`, where it lies in `b`, is one of `b`'s, to within the tolerance."""
    steps = (b.physical_to_voxel() @ a.voxel_to_physical())[:3, :3]
    whole = steps.round()
    ones = torch.ones(3, dtype=torch.float64)
    if not (torch.equal(whole.abs().sum(0), ones) and torch.equal(whole.abs().sum(1), ones)):
        return False
    index = b.to_voxel(a.corners_mm())
    first = index[:1].round()
    # Where the corners would lie if the axes were those of `b` exactly: what is left over is the error.
    last = torch.tensor(a.shape[::-1], dtype=torch.float64) - 1
    unit = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    expected = first + (unit * last) @ whole.T
    spacing = torch.tensor(b.spacing_mm, dtype=torch.float64)
    return bool(((index - expected).abs() * spacing).max() <= tolerance_mm)


def _listed(label_map: LabelMap) -> str:
    values, counts = torch.unique(label_map.labels[label_map.labels != 0], return_counts=True)
    pairs = list(zip(values.tolist(), counts.tolist(), strict=True))
    listed = ", ".join(f"{value} ({count:,} voxels)" for value, count in pairs[:LISTED_LABELS])
    rest = f" and {len(pairs) - LISTED_LABELS} more" if len(pairs) > LISTED_LABELS else ""
    return f"holds the labels {listed}{rest}" if len(pairs) > 1 else f"holds the label {listed}"


def _described(grid: Grid) -> str:
    size = " x ".join(str(n) for n in grid.shape[::-1])
    spacing = " x ".join(f"{value:.4g}" for value in grid.spacing_mm)
    origin = ", ".join(f"{value:.2f}" for value in grid.origin_mm)
    axes = ", ".join(f"{value:.3g}" for row in grid.direction for value in row)
    return f"{size} voxels of {spacing} mm at ({origin}) mm with direction ({axes})"
