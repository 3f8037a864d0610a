"""Turn the muRegPro data into cases and a manifest: `python recipes/muregpro_manifest.py nifti_data -o muregpro`.

Reads the layout of the MR to Ultrasound Registration for Prostate Challenge (doi 10.5281/zenodo.7870104), as its
baseline's `data_generator.py` and `evaluation.py` read it (github.com/muregpro/Baseline-Networks): in each of `train`
and `val` the folders `mr_images`, `us_images`, `mr_labels` and `us_labels`, with one file of the same name for each
case (`case000000.nii.gz`). Labels are 4-D, one structure in each volume along the last axis: the prostate first, then
landmarks, all 0 where a case does not have one. MR is fixed, ultrasound moving.

Writes a new folder: `manifest.csv`, and for each case both glands, landmarks.csv (centroids of the structures that
both scans have, the gland left out) and reference.tfm. The data hold no true transform: the reference is the rigid
motion that fits the centroids of all common structures best, in the least-squares sense; with fewer than three of them
it is the shift between the glands. It was fitted to the landmarks, so that its own landmark error is optimistic.
"""

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from crossalign.errors import CrossalignError, ManifestError
from crossalign.geometry import Rigid
from crossalign.geometry.fit import fit_rigid
from crossalign.images import write_transform
from crossalign.output import whole_folder

SPLITS = ("train", "val")
FOLDERS = {"fixed": "mr_images", "moving": "us_images", "fixed_mask": "mr_labels", "moving_mask": "us_labels"}
COLUMNS = ("case", "patient", "split", *FOLDERS, "reference", "landmarks")
FLIP = np.array([-1.0, -1.0, 1.0])  # from NIfTI's RAS to LPS
LEAST_SPREAD_MM = 1.0  # of points that fix a rotation: their second-largest extent


@dataclass(frozen=True)
class Structures:
    """The gland (x, y, z) of a scan with its affine, and the centroids of its structures, LPS mm, by label."""

    gland: Any
    affine: Any
    centroids_mm: dict[int, Any]


def find_cases(data: Path) -> list[tuple[str, dict[str, Path]]]:
    """List split and files of each case; raises ManifestError where one of its four files is missing."""
    found = []
    for split in SPLITS:
        folders = {column: data / split / name for column, name in FOLDERS.items()}
        if not (data / split).is_dir():
            continue
        for folder in folders.values():
            if not folder.is_dir():
                raise ManifestError(
                    f"{folder}: no such folder, expected {', '.join(FOLDERS.values())} in {data / split}"
                )
        names = sorted({path.name for folder in folders.values() for path in folder.glob("*.nii.gz")})
        for name in names:
            files = {column: folder / name for column, folder in folders.items()}
            missing = [str(path) for path in files.values() if not path.is_file()]
            if missing:
                raise ManifestError(
                    f"case {name.partition('.')[0]} has no {', '.join(missing)}: its other files are there"
                )
            found.append((split, files))
    if not found:
        raise ManifestError(
            f"{data}: no cases: give the folder that holds {' or '.join(SPLITS)} with {FOLDERS['fixed']}"
        )
    return found


def read_structures(labels: Path, image: Path) -> Structures:
    """Read the structures of a scan; raises ManifestError where they are not as published."""
    try:
        file, scan = nib.load(labels), nib.load(image)
        values = np.asarray(file.dataobj)
    except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise ManifestError(f"{labels}: cannot be read: {error}") from error
    if values.ndim != 4 or values.shape[:3] != scan.shape[:3]:
        raise ManifestError(
            f"{labels}: has the shape {values.shape}, expected {tuple(scan.shape[:3])}, as its image has, and "
            "an axis of structures"
        )
    if not values[..., 0].any():
        raise ManifestError(f"{labels}: the first structure, the prostate, is empty")
    centroids = {
        label: nib.affines.apply_affine(scan.affine, np.argwhere(values[..., label] > 0.5).mean(0)) * FLIP
        for label in range(values.shape[3])
        if (values[..., label] > 0.5).any()
    }
    return Structures((values[..., 0] > 0.5).astype(np.uint8), scan.affine, centroids)


def fit_reference(fixed: Structures, moving: Structures) -> Rigid:
    """Fit the motion from fixed to moving points to the centroids of common structures."""
    common = sorted(fixed.centroids_mm.keys() & moving.centroids_mm.keys())
    points = [torch.tensor(np.array([one.centroids_mm[label] for label in common])) for one in (fixed, moving)]
    spreads = [torch.linalg.svdvals(some - some.mean(0)) for some in points]
    if len(common) < 3 or min(float(spread[1]) for spread in spreads) < LEAST_SPREAD_MM:
        return Rigid.from_translation(points[1][0] - points[0][0])
    return fit_rigid(points[0], points[1], prior_mm2=0.0)


def write_case(files: dict[str, Path], folder: Path) -> None:
    """Write what is made of a case into its folder."""
    fixed, moving = (read_structures(files[f"{side}_mask"], files[side]) for side in ("fixed", "moving"))
    folder.mkdir()
    for name, one in (("mr_gland", fixed), ("us_gland", moving)):
        nib.save(nib.Nifti1Image(one.gland, one.affine), folder / f"{name}.nii.gz")
    write_transform(fit_reference(fixed, moving), folder / "reference.tfm")
    with (folder / "landmarks.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("name", *(f"{side}_{axis}" for side in ("fixed", "moving") for axis in "xyz")))
        for label in sorted(fixed.centroids_mm.keys() & moving.centroids_mm.keys() - {0}):
            numbers = (*fixed.centroids_mm[label], *moving.centroids_mm[label])
            writer.writerow((f"structure {label}", *(f"{number:.3f}" for number in numbers)))


def make_manifest(data: Path, output: Path) -> int:
    """Write the folder; return how many cases there are. Raises CrossalignError."""
    cases = find_cases(data)
    with whole_folder(output) as folder:
        rows = []
        for split, files in cases:
            name = f"{split}-{files['fixed'].name.partition('.')[0]}"
            write_case(files, folder / name)
            rows.append(
                {"case": name, "patient": name, "split": split}
                | {side: str(files[side].resolve()) for side in ("fixed", "moving")}
                | {"fixed_mask": f"{name}/mr_gland.nii.gz", "moving_mask": f"{name}/us_gland.nii.gz"}
                | {"reference": f"{name}/reference.tfm", "landmarks": f"{name}/landmarks.csv"}
            )
        with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return len(cases)


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the folder, say how many cases it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="the folder nifti_data, with train and val")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make, with manifest.csv")
    options = parser.parse_args(arguments)
    try:
        count = make_manifest(options.data, options.output)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.output / 'manifest.csv'}: {count} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
