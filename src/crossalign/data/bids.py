"""Pairs of a data set in BIDS's layout (Brain Imaging Data Structure, bids.neuroimaging.io), read by ancpbids.

The fixed and the moving images are told by the suffixes of their names, as T2w and TRUS, which need not be BIDS's own.
A moving image is paired with the fixed image of its subject and session; of several, with the one whose other entities
(run, acq, ...) are the same. Where its session has none, it is paired with the only one that its subject has.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossalign.data.pairs import PairFiles
from crossalign.errors import InputError, InputWarning, ManifestError
from crossalign.extras import optional_module
from crossalign.input import excerpt

DESCRIPTION = "dataset_description.json"
BIDS_VERSION = "1.10.0"
EXTENSIONS = [".nii.gz", ".nii"]
LISTED = 5


@dataclass(frozen=True)
class BidsImages:
    """Which images of a data set: their suffix, and entities that choose among several."""

    suffix: str
    entities: Mapping[str, str]

    @staticmethod
    def parse(text: str, option: str) -> BidsImages:
        """Read `T2w` or `T2w,acq=axial`; raises InputError that names the option."""
        suffix, *rest = (part.strip() for part in text.split(","))
        entities = {}
        for part in rest:
            key, equals, value = part.partition("=")
            if not (key.isalnum() and equals and value.isalnum()):
                raise InputError(f"{option} '{excerpt(text)}': expected a suffix and entities, such as T2w,acq=axial")
            entities[key] = value
        if not suffix.isalnum():
            raise InputError(f"{option} '{excerpt(text)}': expected a suffix, such as T2w, of letters and digits")
        return BidsImages(suffix, entities)


@dataclass(frozen=True)
class BidsChoice:
    """Which images are fixed and moving, and which are their masks; None: there are no masks."""

    fixed: BidsImages
    moving: BidsImages
    fixed_mask: BidsImages | None = None
    moving_mask: BidsImages | None = None


@dataclass(frozen=True)
class _File:
    """A file of the data set and the entities of its name, in the name's order."""

    path: Path
    entities: tuple[str, ...]

    def subject(self) -> str:
        """Return `sub-XX`."""
        return next((entity for entity in self.entities if entity.startswith("sub-")), "")

    def session(self) -> str:
        """Return `ses-YY`, or nothing."""
        return next((entity for entity in self.entities if entity.startswith("ses-")), "")

    def others(self) -> frozenset[str]:
        """Return the entities other than subject and session."""
        return frozenset(self.entities) - {self.subject(), self.session()}


def is_bids(folder: Path) -> bool:
    """Say whether a folder is a data set: it describes itself."""
    return (folder / DESCRIPTION).is_file()


def read_bids_pairs(folder: str | os.PathLike[str], choice: BidsChoice) -> tuple[PairFiles, ...]:
    """Find the pairs of a data set, by subject and session; each is named by the moving image's entities.

    Issues an InputWarning for subjects without a pair, and for cases without one of the masks that were asked for.
    Raises ManifestError where there is no pair, or where it cannot be told which images belong together, InputError
    where ancpbids is not installed.
    """
    folder = Path(folder)
    if not is_bids(folder):
        raise ManifestError(f"{excerpt(folder.name)}: holds no {DESCRIPTION}: not a BIDS data set")
    layout = _layout(folder)
    fixed, moving = (_files(layout, folder, images, raw=True) for images in (choice.fixed, choice.moving))
    pairs = [(found, one) for one in moving if (found := _fixed_of(one, fixed)) is not None]
    if not pairs:
        counts = f"{len(fixed)} {choice.fixed.suffix} and {len(moving)} {choice.moving.suffix} images"
        raise ManifestError(
            f"{excerpt(folder.name)}: no pair of one subject among {counts}: name the suffixes with --bids-fixed and "
            "--bids-moving"
        )
    _warn_of_single({f.subject() for f in (*fixed, *moving)} - {one.subject() for _, one in pairs})
    masks = [
        None if images is None else _files(layout, folder, images, raw=False)
        for images in (choice.fixed_mask, choice.moving_mask)
    ]
    named: dict[str, PairFiles] = {}
    for one, other in pairs:
        name = "_".join(other.entities)
        if name in named:
            raise ManifestError(
                f"{excerpt(name)}: two {choice.moving.suffix} images have this name: choose with entities in "
                "--bids-moving"
            )
        named[name] = PairFiles(name, one.path, other.path, _mask_of(one, masks[0]), _mask_of(other, masks[1]))
    _warn_of_unmasked(choice, tuple(named.values()))
    return tuple(named.values())


def describe_derivative(name: str, version: str) -> str:
    """Return the dataset_description.json of the results."""
    content = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "crossalign", "Version": version, "Description": "Research software, not a medical device."}
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def _layout(folder: Path) -> Any:
    ancpbids = optional_module("ancpbids", "a BIDS data set needs ancpbids", "bids")
    return ancpbids.BIDSLayout(str(folder.resolve()))


def _files(layout: Any, folder: Path, images: BidsImages, raw: bool) -> list[_File]:
    """List the files of a suffix with these entities, by name; `raw`: of the subjects' own folders alone."""
    found = layout.get(
        suffix=images.suffix, extension=EXTENSIONS, return_type="files", scope="all", **dict(images.entities)
    )
    files = [_File(Path(path), tuple(Path(path).name.split("_")[:-1])) for path in sorted(set(found))]
    root = folder.resolve()
    return [f for f in files if f.subject() and (not raw or f.path.relative_to(root).parts[0] == f.subject())]


def _fixed_of(moving: _File, fixed: list[_File]) -> _File | None:
    """Find the fixed image of a moving one; None where its subject has none. Raises ManifestError where it is open."""
    subject = [one for one in fixed if one.subject() == moving.subject()]
    session = [one for one in subject if one.session() == moving.session()]
    nearest = session or subject
    if len(nearest) > 1:
        alike = [one for one in nearest if one.others() == moving.others()]
        if len(alike) != 1:
            listed = ", ".join(excerpt(one.path.name) for one in nearest[:LISTED])
            raise ManifestError(
                f"{excerpt(moving.path.name)}: belongs to one of {listed}: choose with entities in --bids-fixed "
                "(T2w,acq=axial)"
            )
        nearest = alike
    return nearest[0] if nearest else None


def _mask_of(image: _File, masks: list[_File] | None) -> Path | None:
    """Find the mask of an image: of its subject and session, and whose run and acq do not contradict it."""
    found = [
        mask
        for mask in masks or ()
        if mask.subject() == image.subject() and mask.session() == image.session() and _agree(mask, image)
    ]
    if len(found) > 1:
        listed = ", ".join(excerpt(mask.path.name) for mask in found[:LISTED])
        raise ManifestError(f"{excerpt(image.path.name)}: several masks may be of it: {listed}: choose with entities")
    return found[0].path if found else None


def _agree(mask: _File, image: _File) -> bool:
    values = [dict(entity.partition("-")[::2] for entity in one.others()) for one in (mask, image)]
    return all(values[0][key] == values[1][key] for key in values[0].keys() & values[1].keys())


def _warn_of_single(subjects: set[str]) -> None:
    if subjects:
        listed = ", ".join(sorted(subjects)[:LISTED]) + (", ..." if len(subjects) > LISTED else "")
        text = f"without a pair, and left out: {listed} ({len(subjects)} in all)"
        warnings.warn(text, InputWarning, stacklevel=3)


def _warn_of_unmasked(choice: BidsChoice, pairs: tuple[PairFiles, ...]) -> None:
    for part, images in (("fixed_mask", choice.fixed_mask), ("moving_mask", choice.moving_mask)):
        bare = [pair.name for pair in pairs if images is not None and getattr(pair, part) is None]
        if bare:
            listed = ", ".join(bare[:LISTED]) + (", ..." if len(bare) > LISTED else "")
            text = f"without a {part.replace('_', ' ')}: {listed} ({len(bare)} in all)"
            warnings.warn(text, InputWarning, stacklevel=3)
