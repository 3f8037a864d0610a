"""Turn a folder of MR-ultrasound pairs into a manifest: `python recipes/mrus_manifest.py FOLDER -o manifest.csv`.

The folder holds `cases.csv` (column `case`; `patient` and `split` where known) and a folder for each case with
`mr.nii.gz`, `us.nii.gz`, their glands, `reference.tfm` (MR points to ultrasound points) and `landmarks.csv`. A case
without a patient is its own patient; a case without a split gets `--split`. MR is fixed, ultrasound moving.
"""

import argparse
import csv
import os
import sys
from pathlib import Path

from crossalign.errors import CrossalignError, ManifestError
from crossalign.output import whole_file

FILES = {
    "fixed": "mr.nii.gz",
    "moving": "us.nii.gz",
    "fixed_mask": "mr_gland.nii.gz",
    "moving_mask": "us_gland.nii.gz",
    "reference": "reference.tfm",
}
COLUMNS = ("case", "patient", "split", *FILES, "landmarks")


def manifest_rows(folder: Path, split: str | None) -> list[dict[str, str]]:
    """Return one manifest row for each case of the folder, with absolute paths."""
    listing = folder / "cases.csv"
    if not listing.is_file():
        raise ManifestError(f"{listing}: no such file: give the folder that holds cases.csv")
    with listing.open(newline="") as stream:
        return [_row(record, folder.resolve() / record["case"], split) for record in csv.DictReader(stream)]


def _row(record: dict[str, str], folder: Path, default_split: str | None) -> dict[str, str]:
    split = record.get("split") or default_split
    if split is None:
        raise ManifestError(f"cases.csv gives no split for {record['case']}: pass --split train, val or test")
    row = {"case": record["case"], "patient": record.get("patient") or record["case"], "split": split}
    for column, name in FILES.items():
        path = folder / name
        if not path.is_file():
            raise ManifestError(f"{path}: no such file, expected because cases.csv names its case")
        row[column] = str(path)
    landmarks = folder / "landmarks.csv"
    has_points = landmarks.is_file() and len(landmarks.read_text().splitlines()) > 1
    row["landmarks"] = str(landmarks) if has_points else ""
    return row


def relative_to(row: dict[str, str], folder: Path) -> dict[str, str]:
    """Return the row with its paths relative to `folder`."""
    paths = {key: os.path.relpath(row[key], folder.resolve()) for key in (*FILES, "landmarks") if row[key]}
    return row | paths


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the manifest, say how many cases it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="folder with cases.csv and a folder for each case")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the manifest to write (.csv)")
    parser.add_argument("--split", choices=("train", "val", "test"), help="split of cases that cases.csv gives none")
    parser.add_argument("--absolute", action="store_true", help="absolute paths (default: relative to the manifest)")
    parser.add_argument("--overwrite", action="store_true", help="replace the manifest where it exists")
    options = parser.parse_args(arguments)
    try:
        rows = manifest_rows(options.folder, options.split)
        if not options.absolute:
            rows = [relative_to(row, options.output.parent) for row in rows]
        with whole_file(options.output, options.overwrite) as partial, partial.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.output}: {len(rows)} cases of {len({row['patient'] for row in rows})} patients")
    return 0


if __name__ == "__main__":
    sys.exit(main())
