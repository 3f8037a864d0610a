"""Settings of the iterative methods on a few real pairs: the tables of docs/concepts/iterative-methods.md.

    python studies/iterative_settings.py mrus.csv

One initialisation a case and range, from 8 mm, 16 mm and U[0, 20] mm; SRE in mm after registration.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from crossalign.data import load_case, read_manifest
from crossalign.geometry import draw_perturbation, mean_displacement_mm
from crossalign.images import surface_points
from crossalign.registration import Method, MutualInformation, register
from crossalign.registration.iterative.method_settings import MI_BEST, MindSettings, MutualInformationSettings
from crossalign.registration.iterative.mind import MindSSD

PYRAMID = MutualInformationSettings(iterations=30, margin_mm=15.0, checks=0)
FINE = MutualInformationSettings(shrink_factors=(2,), smoothing_mm=(4.0,), iterations=30, margin_mm=15.0, checks=0)
COARSE = MutualInformationSettings(shrink_factors=(3,), smoothing_mm=(5.0,), iterations=10, margin_mm=15.0, checks=0)
BEST = replace(MI_BEST, checks=0)
MI_SETTINGS: dict[str, MutualInformationSettings] = {
    "`mi`'s pyramid, 30 steps a level | 15 mm | 3 x 30 | 1 | 0": PYRAMID,
    "same | 15 mm | 3 x 30 | 2 | 0.001": replace(PYRAMID, initialisations=2, motion_penalty=1e-3),
    "2, 4 mm | 15 mm | 30 | 1 | 0": FINE,
    "same | 15 mm | 30 | 4 | 0.001": replace(FINE, initialisations=4, motion_penalty=1e-3),
    "2, 4 mm | 5 mm | 30 | 1 | 0": replace(FINE, margin_mm=5.0),
    "same | 5 mm | 30 | 4 | 0.001": replace(FINE, margin_mm=5.0, initialisations=4, motion_penalty=1e-3),
    "3, 5 mm | 15 mm | 10 | 1 | 0": COARSE,
    "same | 15 mm | 10 | 4 | 0.001": replace(COARSE, initialisations=4, motion_penalty=1e-3),
    "3, 5 mm | 15 mm | 6 x 2 mm | 12 | 0": replace(COARSE, iterations=6, first_step_mm=2.0, initialisations=12),
    "same | 15 mm | 6 x 2 mm | 12 | 0.001": replace(
        COARSE, iterations=6, first_step_mm=2.0, initialisations=12, motion_penalty=1e-3
    ),
    "3, 5 mm | 25 mm | 10 | 1 | 0": replace(BEST, initialisations=1, motion_penalty=0.0),
    "same | 25 mm | 10 | 12 | 0": replace(BEST, motion_penalty=0.0),
    "**same: `mi-best`** | 25 mm | 10 | 12 | 0.003": BEST,
    "same | 25 mm | 10 | 12 | 0.01": replace(BEST, motion_penalty=1e-2),
}
MIND_SETTINGS: dict[str, MindSettings] = {
    "4, 2 mm | 8 in 10 mm | 5 mm | 0.0001": MindSettings(motion_penalty=1e-4),
    "**4, 2 mm: `mind`** | 8 in 10 mm | 5 mm | 0.0003": MindSettings(),
    "4, 2 mm | 8 in 10 mm | 10 mm | 0.0003": MindSettings(margin_mm=10.0),
    "5, 3 mm, 500 points | 24 in 16 mm | 5 mm | 0.0001": MindSettings(
        spacing_mm=(5.0, 3.0), points=500, initialisations=24, perturbation_mm=16.0, motion_penalty=1e-4
    ),
}


def main() -> int:
    """Print one row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--cases", type=int, default=6, help="cases of different patients, in the manifest's order")
    options = parser.parse_args()
    selected = {case.patient: case for case in reversed(read_manifest(options.manifest, options.split))}
    loaded = [load_case(case) for case in sorted(selected.values(), key=lambda case: case.name)[: options.cases]]
    generator = torch.Generator().manual_seed(11)
    problems = []
    for case in loaded:
        points = surface_points(case.fixed_mask)
        drawn = 20 * torch.rand(1, generator=generator, dtype=torch.float64)
        targets = torch.cat((torch.tensor([8.0, 16.0], dtype=torch.float64), drawn))
        center = case.fixed_mask.centroid_mm().expand(3, 3)
        motions = draw_perturbation(points.expand(3, -1, 3), center, targets, generator)
        problems += [(case, points, kind, case.fixed_to_moving @ motions[kind]) for kind in range(3)]
    methods: dict[str, Method] = {name: MutualInformation(run) for name, run in MI_SETTINGS.items()}
    methods |= {name: MindSSD(run) for name, run in MIND_SETTINGS.items()}
    for name, method in methods.items():
        errors: list[list[float]] = [[], [], []]
        for case, points, kind, initial in problems:
            found = register(case.fixed, case.moving, method, initial, case.fixed_mask).fixed_to_moving
            errors[kind].append(float(mean_displacement_mm(found, case.fixed_to_moving, points)))
        means = [sum(values) / len(values) for values in errors]
        figures = " | ".join(f"{mean:.2f}" for mean in (*means, sum(means) / 3))
        print(f"| {name} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
