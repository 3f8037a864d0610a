"""Write a manifest for fusion of the 24 soft-tissue sarcomas (T1, FDG-PET, tumour) from the `cases.csv` beside them.

python recipes/sts_fusion_manifest.py path/to/sts sts_pairs.csv

Nothing is resampled or cropped: the manifest names the files as they are, and fusion resamples the PET onto the T1's
grid by the identity, since both scans share one frame of reference. The column mask is the tumour on the T1's grid. The
data: theibsi/data_sets, CC BY 3.0, of the Soft-tissue-Sarcoma collection (doi 10.7937/K9/TCIA.2015.7GO2GSKS).
"""

import csv
import sys
from pathlib import Path

from crossalign.output import whole_file

COLUMNS = {"mri": "t1", "pet": "pet", "mask": "t1_mass"}


def main() -> None:
    """Read `cases.csv`, check that every file is there, and write case, mri, pet, mask, split and patient."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER_OF_STS MANIFEST.csv")
    folder, manifest = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        cases = list(csv.DictReader(file))
    rows = []
    for case in cases:
        files = {column: folder / case[name] for column, name in COLUMNS.items()}
        if missing := [path for path in files.values() if not path.is_file()]:
            sys.exit(f"{missing[0]}: is missing")
        rows.append({"case": case["case"], **files, "split": case["split"], "patient": case["case"]})
    with whole_file(manifest) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{manifest}: {len(rows)} pairs")


if __name__ == "__main__":
    main()
