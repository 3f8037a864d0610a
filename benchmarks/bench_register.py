"""Whole-process time, memory and error of registering a simulated 96^3 pair: `crossalign register` beside others.

    python -m benchmarks.bench_register [--runs 3] [--threads 1] [--ants PYTHON]

Start of Python, reading and writing included. `SimpleITK` is a script of its own that imports nothing else: mutual
information of 2 % of the voxels at three resolutions, rigid, from the same initial transform, in the fixed mask. `ANTs`
is `ants.registration` of type Rigid with its own settings, from the same transform, in the same mask; it is left out
where antspyx is not installed: `--ants` names the Python that has it, if another. `--help` is the command alone. The
ways take turns; times are ratios to SimpleITK's. Processor seconds count all threads, and no other program's work.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import measuring, rows

SHAPE, SPACING_MM, SEED = (96, 96, 96), 1.2, 7
SIMPLEITK, ANTS, HELP = "SimpleITK", "ANTs", "--help"
WARM_S, HELP_S = 1.2, 0.2  # goals


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each method, after one warm-up")
    parser.add_argument("--threads", type=int, help="threads of each process; left out: as its libraries choose")
    parser.add_argument("--ants", help="the Python that has antspyx; left out: this one, where it has it")
    measuring.with_rows(parser)
    parser.add_argument("--write-pair", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--simpleitk", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--errors", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.errors:
        print(json.dumps(errors_mm(given.errors)))
        return
    if given.simpleitk:
        register_by_simpleitk(given.simpleitk)
        return
    if given.threads:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), str(given.threads))
    if given.write_pair:
        print(write_pair(given.write_pair))
        return
    ants = given.ants or (sys.executable if importlib.util.find_spec("ants") else None)
    with tempfile.TemporaryDirectory() as name:
        measured = measure(Path(name), 1 if given.quick else given.runs, ants)
        errors = json.loads(_printed("--errors", name))
    print(f"registering, {SHAPE} voxels, {given.runs} runs each, whole processes, median (least to most)")
    print("" if ants else "ANTs: not measured, antspyx is not installed", "\n", sep="")
    print("| way | wall s | processor s | to SimpleITK | peak MiB | SRE, mm |\n| --- | --- | --- | --- | --- | --- |")
    made = []
    for method, costs in measured.items():
        _, processor, ratio = costs_of = parts(costs, measured[SIMPLEITK])
        peak = max(cost.peak_mib for cost in costs)
        error = "" if method == HELP else f"{errors[method]:.2f}"
        print(f"| {method} | {' | '.join(map(_text, costs_of))} | {peak:.0f} | {error} |")
        made.append(row(method, processor, ratio, error))
    rows.written(given.rows, made)


def parts(costs: list[measuring.Cost], base: list[measuring.Cost]) -> tuple[list[float], list[float], list[float]]:
    """Return the wall and processor seconds of each run, and the ratio of the latter to SimpleITK's of its turn."""
    processor = [cost.processor for cost in costs]
    ratios = [one / other.processor for one, other in zip(processor, base, strict=True)]
    return [cost.wall for cost in costs], processor, ratios


def row(method: str, processor: list[float], ratio: list[float], error: str) -> rows.Row:
    """Make a way's row; its processor time stands for the clock's, which other programs lengthen."""
    here = f"{statistics.median(processor):.2f} processor s"
    here += f", SRE {error} mm" if error else ""
    if method in (SIMPLEITK, ANTS, "mi"):
        return rows.Row(f"registering by {method}, whole process", SIMPLEITK, here, measuring.spread(ratio))
    most, what = (HELP_S, "`crossalign --help`") if method == HELP else (WARM_S, f"`crossalign register`, {method}")
    met = statistics.median(processor) <= most
    return rows.Row(
        f"{what}, whole process", SIMPLEITK, here, measuring.spread(ratio), f"{most} processor s or less", met
    )


def _text(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _printed(*words: str) -> str:
    """Let another process do it: a child's peak memory starts from its parent's, so this one stays small."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_register", *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def measure(folder: Path, runs: int, ants: str | None) -> dict[str, list[measuring.Cost]]:
    """Run every way in turn after a warm-up of each."""
    shipped = _printed("--write-pair", str(folder))
    ways = [SIMPLEITK, *([ANTS] if ants else []), shipped, "mi", HELP]
    measured: dict[str, list[measuring.Cost]] = {method: [] for method in ways}
    for number in range(runs + 1):
        for method, values in measured.items():
            value = register(folder, method, ants)
            if number:
                values.append(value)
    return measured


def write_pair(folder: Path) -> str:
    """Write a simulated pair and an initial transform 12 mm off; return the default method's name."""
    import torch

    from crossalign.geometry import draw_perturbation
    from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform
    from crossalign.registration.methods import default_method_name
    from crossalign.simulation import simulate_pairs

    generator = torch.Generator().manual_seed(SEED)
    pairs = simulate_pairs(1, generator, shape=SHAPE, spacing_mm=SPACING_MM)
    gland = LabelMap(pairs.fixed_mask[0, 0].long(), pairs.fixed_grid)
    write_image(Image(pairs.fixed[0, 0], pairs.fixed_grid), folder / "mr.nii.gz")
    write_image(Image(pairs.moving[0, 0], pairs.moving_grid), folder / "us.nii.gz")
    write_label_map(gland, folder / "gland.nii.gz")
    surface = pairs.surface_mm.double()
    motion = draw_perturbation(surface, gland.centroid_mm()[None], torch.tensor([12.0]).double(), generator)
    truth = pairs.fixed_to_moving[0].to("cpu", torch.float64)
    write_transform(truth, folder / "truth.tfm")
    write_transform(truth @ motion[0], folder / "initial.tfm")
    return default_method_name(fixed_mask=True)


def register_by_simpleitk(folder: Path) -> None:
    """Register the pair with SimpleITK alone."""
    import SimpleITK as sitk

    fixed, moving = (sitk.ReadImage(str(folder / name), sitk.sitkFloat32) for name in ("mr.nii.gz", "us.nii.gz"))
    given = sitk.AffineTransform(sitk.ReadTransform(str(folder / "initial.tfm")))
    center = fixed.TransformContinuousIndexToPhysicalPoint([size / 2 for size in fixed.GetSize()])
    initial = sitk.Euler3DTransform()
    initial.SetCenter(center)
    initial.SetMatrix(given.GetMatrix(), 1e-6)
    initial.SetTranslation([to - at for to, at in zip(given.TransformPoint(center), center, strict=True)])
    registration = sitk.ImageRegistrationMethod()
    registration.SetMetricAsMattesMutualInformation(32)
    registration.SetMetricSamplingStrategy(registration.RANDOM)
    registration.SetMetricSamplingPercentage(0.02, SEED)
    registration.SetMetricFixedMask(sitk.ReadImage(str(folder / "gland.nii.gz"), sitk.sitkUInt8))
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(1.0, 0.01, 200)
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetShrinkFactorsPerLevel([4, 2, 1])
    registration.SetSmoothingSigmasPerLevel([2, 1, 0])
    registration.SetInitialTransform(initial, inPlace=False)
    sitk.WriteTransform(registration.Execute(fixed, moving), str(folder / f"{SIMPLEITK}.tfm"))


ANTS_SCRIPT = """
import ants, shutil, sys
folder = sys.argv[1] + "/"
fixed, moving, mask = (ants.image_read(folder + name) for name in ("mr.nii.gz", "us.nii.gz", "gland.nii.gz"))
found = ants.registration(fixed, moving, "Rigid", initial_transform=folder + "initial.tfm", mask=mask, random_seed=7)
(file,) = found["fwdtransforms"]
shutil.copy(file, folder + "ANTs.mat")
"""


def register(folder: Path, method: str, ants: str | None) -> measuring.Cost:
    """Register in a process of its own, or ask for help."""
    if method == HELP:
        return measuring.process_cost(["-m", "crossalign", "--help"])
    if method == ANTS and ants is not None:
        return measuring.process_cost(["-c", ANTS_SCRIPT, str(folder)], python=ants)
    if method == SIMPLEITK:
        return measuring.process_cost(["-m", "benchmarks.bench_register", "--simpleitk", str(folder)])
    words = ["-m", "crossalign", "register", str(folder / "mr.nii.gz"), str(folder / "us.nii.gz")]
    words += ["--initial", str(folder / "initial.tfm"), "--fixed-mask", str(folder / "gland.nii.gz")]
    words += ["--method", method, "--output-transform", str(folder / f"{method}.tfm"), "--overwrite"]
    return measuring.process_cost(words)


def errors_mm(folder: Path) -> dict[str, float]:
    """Return the SRE of every transform in the folder, by its name."""
    import SimpleITK as sitk

    from crossalign.images import read_label_map, surface_points

    points = [tuple(point.tolist()) for point in surface_points(read_label_map(folder / "gland.nii.gz"))]

    def moved(path: Path) -> list[tuple[float, ...]]:
        transform = sitk.ReadTransform(str(path))
        return [transform.TransformPoint(point) for point in points]

    truth = moved(folder / "truth.tfm")
    return {
        path.stem: statistics.mean(math.dist(one, other) for one, other in zip(moved(path), truth, strict=True))
        for path in (*folder.glob("*.tfm"), *folder.glob("*.mat"))
    }


if __name__ == "__main__":
    main()
