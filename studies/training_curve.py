"""Learning curves of finished runs: `python studies/training_curve.py NAME=RUN ... -o curve.png --log log.csv`.

A RUN is a folder of `crossalign train` or of one run of `recipes/train_shipped.py`. Draws the validation SRE of each
against its steps, and writes the validations of all into one table.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from crossalign.errors import CrossalignError, InputError
from crossalign.output import whole_file


def validations(run: Path) -> pd.DataFrame:
    """Read the rows of a run's history that hold a validation; raises InputError."""
    path = run / "history.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such file: name the folder of a run")
    rows = pd.read_csv(path)
    if "val_sre_mm" not in rows or rows["val_sre_mm"].dropna().empty:
        raise InputError(f"{path}: holds no validation of a registration network")
    return rows.dropna(subset="val_sre_mm")


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
        with whole_file(given.log, overwrite=True) as partial:
            pd.concat(named, names=["run"]).reset_index("run").to_csv(partial, index=False)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def draw(named: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw the curves."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for name, rows in named.items():
        axes.plot(rows["step"], rows["val_sre_mm"], marker="o", markersize=3, label=name)
    axes.set_xlabel("steps of 16 pairs")
    axes.set_ylabel("SRE on validation pairs of its own kind (mm)")
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path, overwrite=True) as partial:
        figure.savefig(partial, dpi=120, format="png")


if __name__ == "__main__":
    sys.exit(main())
