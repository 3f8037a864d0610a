"""Whole-process time and peak memory of registering a simulated 96^3 pair: `crossalign register` beside SimpleITK.

    python benchmarks/bench_register.py [--runs 3] [--threads 1]

Start of Python, reading and writing included. `SimpleITK` is a script of its own that imports nothing else: mutual
information of 2 % of the voxels at three resolutions, rigid, from the same initial transform, in the fixed mask. The
ways take turns; times are ratios to SimpleITK's. Processor seconds count all threads, and no other program's work.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring  # type: ignore[import-not-found] # found beside this script

SHAPE, SPACING_MM, SEED = (96, 96, 96), 1.2, 7
SIMPLEITK = "SimpleITK"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each method, after one warm-up")
    parser.add_argument("--threads", type=int, help="threads of each process; left out: as its libraries choose")
    parser.add_argument("--write-pair", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--simpleitk", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.simpleitk:
        register_by_simpleitk(given.simpleitk)
        return
    if given.threads:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), str(given.threads))
    if given.write_pair:
        print(write_pair(given.write_pair))
        return
    with tempfile.TemporaryDirectory() as name:
        measured = measure(Path(name), given.runs)
    print(f"registering, {SHAPE} voxels, {given.runs} runs each, whole processes, median (least to most)\n")
    print("| way | wall s | processor s | to SimpleITK | peak MiB |\n| --- | --- | --- | --- | --- |")
    base = [cost.processor for cost in measured[SIMPLEITK]]
    for method, costs in measured.items():
        processor = [cost.processor for cost in costs]
        ratios = [one / other for one, other in zip(processor, base, strict=True)]
        told = (_told([cost.wall for cost in costs]), _told(processor), _told(ratios))
        print(f"| {method} | {' | '.join(told)} | {max(cost.peak_mib for cost in costs):.0f} |")


def _told(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measure(folder: Path, runs: int) -> dict[str, list[measuring.Cost]]:
    """Run every way in turn after a warm-up of each.

    The pair is written by another process: a child's peak memory starts from its parent's, so this one stays small.
    """
    words = [sys.executable, __file__, "--write-pair", str(folder)]
    shipped = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    measured: dict[str, list[measuring.Cost]] = {method: [] for method in (SIMPLEITK, shipped, "mi")}
    for number in range(runs + 1):
        for method, values in measured.items():
            value = register(folder, method)
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
    write_transform(pairs.fixed_to_moving[0].to("cpu", torch.float64) @ motion[0], folder / "initial.tfm")
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
    sitk.WriteTransform(registration.Execute(fixed, moving), str(folder / "simpleitk.tfm"))


def register(folder: Path, method: str) -> measuring.Cost:
    """Register in a process of its own."""
    words = ["-m", "crossalign", "register", str(folder / "mr.nii.gz"), str(folder / "us.nii.gz")]
    words += ["--initial", str(folder / "initial.tfm"), "--fixed-mask", str(folder / "gland.nii.gz")]
    words += ["--method", method, "--output-transform", str(folder / "out.tfm"), "--overwrite"]
    if method == SIMPLEITK:
        words = [__file__, "--simpleitk", str(folder)]
    return measuring.process_cost(words)


if __name__ == "__main__":
    main()
