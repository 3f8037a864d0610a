"""Draw simulated pairs beside real ones: `python studies/simulation_sheet.py MANIFEST -o sheet.png [--seed 0]`.

Each pair is shown as a network is given it at an initial SRE of 0 mm: crops of 32^3 voxels at 2.5 mm about the gland,
the fixed scan above the moving one, each cut through the middle along three planes. Real pairs are the first eight of
the manifest's train split; 24 simulated pelves and 8 pairs of random shapes follow, drawn from the seed, none picked.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossalign.data import load_case, read_manifest
from crossalign.errors import CrossalignError
from crossalign.evaluation import write_figure
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, scale_intensity, to_working_spacing
from crossalign.simulation import SimulatedPairs, simulate_pairs, simulate_shapes

SIZE, STEP_MM, ACROSS = 32, 2.5, 8
REAL, PELVES, SHAPES = 8, 24, 8
GAP = 3  # pixels between pairs


def crops_of(fixed: Image, moving: Image, center_mm: Tensor, fixed_to_moving: Rigid) -> tuple[Tensor, Tensor]:
    """Cut both scans about `center_mm` of the fixed one, the moving scan where the reference puts it: (z, y, x)."""
    x, y, z = center_mm.tolist()
    grid = Grid.centered((x, y, z), (SIZE,) * 3, (STEP_MM,) * 3)
    first, second = (to_working_spacing(scale_intensity(image), STEP_MM) for image in (fixed, moving))
    return first.resampled(grid, fill=0.0).voxels, second.resampled(grid, fixed_to_moving, fill=0.0).voxels


def simulated_crops(pairs: SimulatedPairs) -> list[tuple[Tensor, Tensor]]:
    """Cut simulated pairs about the middle of the fixed gland."""
    found = []
    for k in range(len(pairs.fixed)):
        center = pairs.fixed_grid.points_mm()[pairs.fixed_mask[k, 0]].double().mean(0)
        scans = Image(pairs.fixed[k, 0], pairs.fixed_grid), Image(pairs.moving[k, 0], pairs.moving_grid)
        found.append(crops_of(*scans, center, pairs.fixed_to_moving[k].to("cpu", torch.float64)))
    return found


def real_crops(manifest: str, count: int) -> list[tuple[Tensor, Tensor]]:
    """Read the first cases of the train split."""
    found = []
    for case in read_manifest(manifest, "train")[:count]:
        loaded = load_case(case)
        found.append(crops_of(loaded.fixed, loaded.moving, loaded.fixed_mask.centroid_mm(), loaded.fixed_to_moving))
    return found


def tile(fixed: Tensor, moving: Tensor) -> np.ndarray:
    """Lay out one pair: axial, coronal and sagittal plane from left to right, fixed above moving; superior upwards."""
    middle = SIZE // 2
    rows = [
        torch.cat((scan[middle], scan[:, middle].flip(0), scan[:, :, middle].flip(0)), 1) for scan in (fixed, moving)
    ]
    return torch.cat(rows).clamp(0, 1).float().numpy()


def mosaic(pairs: Sequence[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Lay out pairs, eight in a line, with white gaps between them."""
    tiles = [np.pad(tile(*pair), ((0, GAP), (0, GAP)), constant_values=1.0) for pair in pairs]
    blank = np.ones_like(tiles[0])
    tiles += [blank] * (-len(tiles) % ACROSS)
    return np.concatenate([np.concatenate(tiles[k : k + ACROSS], 1) for k in range(0, len(tiles), ACROSS)])


def draw_sheet(parts: dict[str, np.ndarray]) -> Any:
    """Draw the mosaics below one another, each under its title."""
    from matplotlib.figure import Figure

    pictures = list(parts.values())
    height, width = sum(picture.shape[0] + 14 for picture in pictures), pictures[0].shape[1]
    figure = Figure(figsize=(width / 75, height / 75), dpi=150, layout="constrained")
    panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=[len(picture) for picture in pictures])
    for axes, (title, picture) in zip(panels[:, 0], parts.items(), strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize="medium", loc="left")
        axes.set_axis_off()
    return figure


def main(words: Sequence[str] | None = None) -> int:
    """Read the options, draw and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", help="manifest of real pairs; the first eight of its train split are shown")
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulated pairs (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    given = parser.parse_args(words)
    try:
        generator = torch.Generator().manual_seed(given.seed)
        parts = {
            "Real": mosaic(real_crops(given.manifest, REAL)),
            "Simulated": mosaic(simulated_crops(simulate_pairs(PELVES, generator))),
            "Random shapes, any two modalities": mosaic(simulated_crops(simulate_shapes(SHAPES, generator))),
        }
        write_figure(draw_sheet(parts), given.output, given.overwrite)
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
