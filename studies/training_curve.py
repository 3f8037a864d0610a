"""Learning curves of finished runs: `python studies/training_curve.py NAME=RUN ... -o curve.png --log log.csv`.

A RUN is a folder of `crossalign train` or of one run of `recipes/train_shipped.py`. Draws the validation SRE of each
against its steps, and writes the validations of all into one table.
"""

import argparse
import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from crossalign.errors import CrossalignError, InputError
from crossalign.output import whole_file

COLUMNS = ("step", "loss", "rate", "seconds", "val_sre_mm", "samples_per_second")


def validations(run: Path) -> list[dict[str, str]]:
    """Read the rows of a run's history that hold a validation; raises InputError."""
    path = run / "history.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such file: name the folder of a run")
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("val_sre_mm")]
    if not rows:
        raise InputError(f"{path}: holds no validation of a registration network")
    return rows


def main() -> int:
    """Read the options, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    given = parser.parse_args()
    try:
        named = {name: validations(Path(folder)) for name, _, folder in (text.partition("=") for text in given.runs)}
        draw(named, given.output)
        with whole_file(given.log, overwrite=True) as partial, partial.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("run", *COLUMNS))
            writer.writerows([name, *(row[key] for key in COLUMNS)] for name, rows in named.items() for row in rows)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def draw(named: dict[str, list[dict[str, str]]], path: Path) -> None:
    """Draw the curves."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for name, rows in named.items():
        steps, errors = ([float(row[key]) for row in rows] for key in ("step", "val_sre_mm"))
        axes.plot(steps, errors, marker="o", markersize=3, label=name)
    axes.set_xlabel("steps of 16 pairs")
    axes.set_ylabel("SRE on pairs held back of its own kind (mm)")
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path, overwrite=True) as partial:
        figure.savefig(partial, dpi=120, format="png")


if __name__ == "__main__":
    sys.exit(main())
