"""How methods fail: `python studies/case_pictures.py ROWS.csv MANIFEST -o FOLDER [--initial-sre-mm 0-20] [--seed 0]`.

ROWS.csv is what `crossalign evaluate` wrote. Prints a Markdown table of what is left to correct after each method:
along which axis, shift or rotation, and how it depends on the initial error and the gland's volume. Draws
`cases-METHOD.png` for each: its best, median and worst registration from one range of initialisations, as outlines of
the gland alone; no voxel of a scan is shown. All is drawn in the fixed image's axes, mm from the centroid of its gland:
the fixed gland where it belongs (black), where the initialisation (dotted) and the result (red) put it, and the moving
gland (blue). The axes are those of the files' headers; where these are wrong, so are the letters.
"""

import argparse
import csv
import io
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossalign.data import LoadedCase, load_case, read_manifest
from crossalign.errors import CrossalignError, InputError
from crossalign.evaluation import InitialisationRange, draw_initialisations
from crossalign.evaluation.rows import RESIDUAL
from crossalign.evaluation.statistics import rank_correlation
from crossalign.geometry import Grid, Rigid
from crossalign.images import LabelMap
from crossalign.output import whole_file

PLANES = (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2))  # name, axis to the right, axis upwards
EARLIER = {"initialisation": "start", "initial_sre_mm": "start_sre_mm"}  # columns of earlier versions
AXES = ("x (L)", "y (P)", "z (S)")
HALF_MM, STEP_MM = 44, 1.0
COLUMNS = (
    *("method", "n", "SRE, mm", "worse than initially", "remaining shift, of the initial one, mm"),
    *("remaining rotation, of the initial one, deg", "mean shift x, y, z, mm", "mean size of it, mm"),
    *("mean rotation about x, y, z, deg", "mean size of it, deg", "SRE ~ initial SRE", "SRE ~ volume"),
)


@dataclass(frozen=True)
class Registration:
    """One row of the table: who, how far off before and after (mm), and the six parameters left (mm, degrees)."""

    case: str
    initialisation: str
    repeat: int
    method: str
    initial_sre_mm: float
    sre_mm: float
    tre_mm: float
    residual: tuple[float, ...]


def read_rows(path: Path) -> list[Registration]:
    """Read the rows that ended without an error. Raises InputError for a table without residuals."""
    with path.open(newline="", encoding="utf-8") as stream:
        lines = [line for line in csv.DictReader(stream) if not line.get("error")]
    if not lines or not all(line.get(name) for line in lines for name in RESIDUAL):
        raise InputError(f"{path}: {RESIDUAL[0]} ... {RESIDUAL[-1]} are not filled: write the table anew with evaluate")
    return [_registration(line) for line in lines]


def _registration(line: dict[str, str]) -> Registration:
    line |= {new: line[old] for new, old in EARLIER.items() if old in line}
    initial_sre_mm, sre_mm, tre_mm = (float(line[name] or math.nan) for name in ("initial_sre_mm", "sre_mm", "tre_mm"))
    residual = tuple(float(line[name]) for name in RESIDUAL)
    who = (line["case"], line["initialisation"], int(line["repeat"]), line["method"])
    return Registration(*who, initial_sre_mm, sre_mm, tre_mm, residual)


def methods_of(rows: Sequence[Registration]) -> list[str]:
    """Name the methods, in the order of the table."""
    return list(dict.fromkeys(row.method for row in rows))


def selected(rows: Sequence[Registration], method: str, initialisation: str) -> dict[str, Registration]:
    """Pick a method's best, median (the lower of two) and worst registration by SRE from one range."""
    ranked = sorted(
        (row for row in rows if row.method == method and row.initialisation == initialisation),
        key=lambda row: row.sre_mm,
    )
    if not ranked:
        raise InputError(f"the table has no row of {method} from {initialisation} mm")
    return {"best": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]}


def initial_motion(case: LoadedCase, row: Registration, seed: int) -> Rigid:
    """Draw the row's initialisation again, as a motion of the fixed gland; raises InputError for another seed."""
    sre_range = InitialisationRange.parse(row.initialisation)
    initial = draw_initialisations(case, sre_range, row.repeat + 1, seed)[row.repeat]
    motion = case.fixed_to_moving.inverse() @ initial
    reached = float((motion.apply(case.surface_mm) - case.surface_mm).norm(dim=-1).mean())
    if abs(reached - row.initial_sre_mm) > 0.02:
        raise InputError(
            f"{row.case}: seed {seed} begins at {reached:.2f} mm, the table at {row.initial_sre_mm:.2f}: "
            "give its --seed"
        )
    return motion


def residual_motion(case: LoadedCase, row: Registration) -> Rigid:
    """Return what the result is off by, as a motion of the fixed gland."""
    return Rigid.from_parameters(torch.tensor(row.residual).double(), case.fixed_mask.centroid_mm())


def plane_mask(mask: LabelMap, center_mm: Tensor, plane: tuple[int, int], to_mask: Rigid | None = None) -> Tensor:
    """Sample a mask on a square plane through `center_mm`: (n, n), rows upwards; `to_mask` maps the plane to it."""
    size = round(2 * HALF_MM / STEP_MM) + 1
    shape = [size if axis in plane else 1 for axis in (2, 1, 0)]
    x, y, z = center_mm.tolist()
    grid = Grid.centered((x, y, z), (shape[0], shape[1], shape[2]), (STEP_MM,) * 3)
    return mask.foreground().resampled(grid, to_mask, fill=0.0).voxels.squeeze()


def draw_method(name: str, picked: dict[str, Registration], cases: dict[str, LoadedCase], seed: int) -> Any:
    """Draw the figure of one method: a row for each registration, a column for each plane."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 6.6), layout="constrained")
    panels = figure.subplots(len(picked), len(PLANES), squeeze=False)
    for rank, (line, (kind, row)) in enumerate(zip(panels, picked.items(), strict=True)):
        _draw_row(line, cases[row.case], row, seed)
        line[0].set_ylabel(f"{kind}: {row.case}\n{AXES[PLANES[0][2]]}, mm")
        line[1].set_title(
            f"SRE {row.initial_sre_mm:.1f} to {row.sre_mm:.1f} mm, TRE {row.tre_mm:.1f} mm", fontsize="medium"
        )
        if rank == 0:
            figure.suptitle(name)
    handles, labels = _legend()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def _draw_row(panels: Sequence[Any], case: LoadedCase, row: Registration, seed: int) -> None:
    center = case.fixed_mask.centroid_mm()
    outlines = [
        (case.fixed_mask, initial_motion(case, row, seed).inverse(), "0.45", ":"),
        (case.moving_mask, case.fixed_to_moving, "tab:blue", "-"),
        (case.fixed_mask, None, "black", "-"),
        (case.fixed_mask, residual_motion(case, row).inverse(), "tab:red", "-"),
    ]
    along = np.arange(-HALF_MM, HALF_MM + STEP_MM / 2, STEP_MM)
    for panel, (name, right, up) in zip(panels, PLANES, strict=True):
        for mask, to_mask, color, style in outlines:
            inside = None if mask is None else plane_mask(mask, center, (right, up), to_mask).numpy()
            if inside is not None and inside.max() > 0.5:
                panel.contour(along, along, inside, [0.5], colors=[color], linestyles=[style], linewidths=1.2)
        panel.set_aspect("equal")
        panel.tick_params(labelsize="x-small")
        panel.set_xlabel(f"{name}: {AXES[right]}", fontsize="small")
        panel.set_ylabel(AXES[up], fontsize="small")


def _legend() -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    colors = {"fixed gland, in place": "black", "moving gland": "tab:blue", "at the result": "tab:red"}
    lines = [Line2D([], [], color=color) for color in colors.values()]
    return [*lines, Line2D([], [], color="0.45", linestyle=":")], [*colors, "at the initialisation"]


def write_small(figure: Any, path: Path, overwrite: bool = False) -> None:
    """Write a figure of few colours as a PNG with a palette: a third of the size. Raises OutputError."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    with whole_file(path, overwrite) as partial:
        Image.open(drawn).convert("RGB").quantize(32).save(partial, format="png", optimize=True)


def failure_table(rows: Sequence[Registration], cases: dict[str, LoadedCase], seed: int) -> list[str]:
    """Describe each method's residuals over all rows, as lines of a Markdown table."""
    drawn = {(row.case, row.initialisation, row.repeat): row for row in rows}
    initial = {key: _initial_parameters(cases[row.case], row, seed) for key, row in drawn.items()}
    volumes = {name: _volume_ml(case) for name, case in cases.items()}
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for method in methods_of(rows):
        mine = [row for row in rows if row.method == method]
        lines.append("| " + " | ".join(_facts(method, mine, initial, volumes)) + " |")
    return lines


def _initial_parameters(case: LoadedCase, row: Registration, seed: int) -> np.ndarray:
    return initial_motion(case, row, seed).to_parameters(case.fixed_mask.centroid_mm()).numpy()


def _facts(
    method: str,
    rows: Sequence[Registration],
    initial: dict[tuple[str, str, int], np.ndarray],
    volumes: dict[str, float],
) -> list[str]:
    left = np.array([row.residual for row in rows])
    before = np.array([initial[row.case, row.initialisation, row.repeat] for row in rows])
    sre, initial_sre = (np.array([getattr(row, name) for row in rows]) for name in ("sre_mm", "initial_sre_mm"))
    sizes = np.array([volumes[row.case] for row in rows])

    def lengths(part: slice) -> str:
        return " of ".join(f"{np.linalg.norm(values[:, part], axis=1).mean():.1f}" for values in (left, before))

    def axes(part: slice) -> tuple[str, str]:
        return _three(left[:, part].mean(0), "+.1f"), _three(abs(left[:, part]).mean(0), ".1f")

    shift, rotation = slice(0, 3), slice(3, 6)
    return [
        *(method, str(len(rows)), f"{sre.mean():.2f}", f"{np.mean(sre > initial_sre + 1e-3):.0%}"),
        *(lengths(shift), lengths(rotation), *axes(shift), *axes(rotation)),
        *(f"{rank_correlation(sre, initial_sre):.2f}", f"{rank_correlation(sre, sizes):.2f}"),
    ]


def _three(values: np.ndarray, form: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values)


def _volume_ml(case: LoadedCase) -> float:
    voxel = abs(float(torch.linalg.det(case.fixed_mask.grid.voxel_to_physical()[:3, :3])))
    return float((case.fixed_mask.labels != 0).sum()) * voxel / 1000


def picture_name(method: str) -> str:
    """Name a method's picture; what a file name cannot hold becomes a hyphen."""
    return f"cases-{re.sub('[^A-Za-z0-9.]+', '-', method).strip('-').lower()}.png"


def main(arguments: list[str] | None = None) -> int:
    """Read the options, print the table, draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="rows of `crossalign evaluate` (.csv)")
    parser.add_argument("manifest", type=Path, help="the manifest that was evaluated")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--initial-sre-mm", default="0-20", help="range that the pictures show (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the evaluation (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that exist")
    options = parser.parse_args(arguments)
    try:
        rows = read_rows(options.rows)
        wanted = {row.case for row in rows}
        cases = {case.name: load_case(case) for case in read_manifest(options.manifest) if case.name in wanted}
        options.output.mkdir(exist_ok=True)
        print("\n".join(failure_table(rows, cases, options.seed)))
        for method in methods_of(rows):
            picked = selected(rows, method, options.initial_sre_mm)
            figure = draw_method(f"{method}, from {options.initial_sre_mm} mm", picked, cases, options.seed)
            write_small(figure, options.output / picture_name(method), options.overwrite)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
