"""What networks in bfloat16 change: SRE of a shipped model on a manifest's validation pairs, beside float32.

    python -m benchmarks.bench_bfloat16 --manifest PAIRS.csv --orientation-correction 270 [--method NAME]

Each pair is registered from one initial transform 10 mm off, by networks in float32 and under autocast to bfloat16.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from benchmarks import bench_onnx


def main() -> None:
    """Print both means, and how far apart the answers lie."""
    import torch

    from crossalign.onnx_runtime.motions import mean_displacement_mm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="cases with a known answer")
    parser.add_argument("--orientation-correction", type=int, default=0, help="of the manifest's headers, degrees")
    parser.add_argument("--method", default="correspondence-label")
    given = parser.parse_args()
    with given.manifest.open(newline="") as file:
        chosen = [row for row in csv.DictReader(file) if row["split"] == "val"]
    errors: dict[bool, list[float]] = {False: [], True: []}
    apart = []
    for row in chosen:
        pair, truth, points = bench_onnx.case(given.manifest.parent, row, given.orientation_correction)
        paths = [given.manifest.parent / row[part] for part in ("fixed", "moving", "fixed_mask")]
        found = {}
        for half, values in errors.items():
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found[half] = bench_onnx.registered_by_torch(
                    given.method, paths, pair.initial, given.orientation_correction
                )
            values.append(mean_displacement_mm(found[half], truth, points))
        apart.append(mean_displacement_mm(found[False], found[True], points))
    for half, values in errors.items():
        kind = "bfloat16" if half else "float32"
        print(f"{given.method}, {kind}: n = {len(values)}, mean SRE {statistics.mean(values):.3f} mm", end="")
        print(f" (sd {statistics.stdev(values):.3f})")
    print(f"answers apart: mean {statistics.mean(apart):.3f} mm, most {max(apart):.3f} mm")


if __name__ == "__main__":
    main()
