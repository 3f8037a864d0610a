"""Real and simulated pairs, measured in one way: the numbers of docs/lab/simulation.md on how realistic they are.

    python studies/simulation_measures.py MANIFEST [--split train] [--orientation-correction 270] [--count 80]
        [--critic run/best.safetensors ...]

Prints tables, real beside simulated: where the imaged box of the ultrasound lies; brightness by depth from the probe,
inside and outside the gland; how brightness at each height of the box goes with the gland's height in it (what a
network can tell that height from); brightness across the gland's border; and what critics make of both, networks
trained on real pairs (`--critic`; the split to measure is one that they were not trained on): SRE after one pass and
the Dice of the glands that they mark. Brightness is of the range 0..1 that networks see.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from crossalign.data import load_case, read_manifest
from crossalign.errors import CrossalignError, InputError
from crossalign.models import StageSettings, load_stage
from crossalign.networks.correspondence import CorrespondenceReg
from crossalign.training import PairDataset
from crossalign.training.dataset import rotated
from crossalign.training.preparation import dataset_from_cases, dataset_from_simulation
from crossalign.training.sampling import draw_batch
from crossalign.training.settings import NO_AUGMENTATION
from crossalign.training.tasks.registration import correction_error_mm

STAGE = StageSettings("correspondence")
SEEN = 0.02  # brighter than this was imaged
DEPTHS_MM = (0, 7, 14, 21, 28, 35, 42, 49, 56, 63)
BORDER_MM = (-15, -10, -6, -3, 0, 3, 6, 10, 15, 20)
RAYS = {
    "back": (0, 1, 0),
    "front": (0, -1, 0),
    "left": (1, 0, 0),
    "right": (-1, 0, 0),
    "above": (0, 0, 1),
    "below": (0, 0, -1),
}
COLUMNS_MM = {"middle": (-10, 10), "right": (-32, -14), "left": (14, 32)}  # of the imaged box, to the patient's left
BANDS_MM = ((12, 22), (24, 36), (38, 50), (52, 64))  # from the face of the probe
HEIGHTS = 12
PROBE_MM = 9.0  # the radius that beams start at


@dataclass(frozen=True, eq=False)
class Scan:
    """One image and its gland, (z, y, x), on a lattice of `spacing_mm` from 0."""

    image: Tensor
    gland: Tensor
    spacing_mm: float

    def center_mm(self) -> Tensor:
        """Return the gland's centroid, (x, y, z)."""
        return self.gland.nonzero().float().mean(0).flip(0) * self.spacing_mm

    def at(self, points_mm: Tensor) -> tuple[Tensor, Tensor]:
        """Look up the image and the gland at points (n, 3)."""
        last = torch.tensor(self.image.shape[::-1]) - 1
        grid = (points_mm / self.spacing_mm / last * 2 - 1)[None, None, None]
        both = torch.stack((self.image, self.gland.float()))[None]
        found = F.grid_sample(both, grid, align_corners=True)[0, :, 0, 0]
        return found[0], found[1] > 0.5


def scans(dataset: PairDataset, moving: bool) -> list[Scan]:
    """Take a dataset's images of one side apart."""
    masks = dataset.moving_mask if moving else dataset.fixed_mask
    if masks is None:
        raise InputError("every case needs a mask of its moving image: name it in the manifest's moving_mask")
    images, spacing_mm = (dataset.moving if moving else dataset.fixed).float(), float(dataset.spacing_mm)
    return [Scan(image[0], mask[0] > 0.5, spacing_mm) for image, mask in zip(images, masks, strict=True)]


def imaged(scan: Scan) -> tuple[Tensor, Tensor]:
    """Return the corners of the box that was imaged, (x, y, z), mm."""
    seen, places = (scan.image > SEEN).float(), []
    for axis in range(3):
        fraction = seen.mean([other for other in range(3) if other != axis])
        inside = (fraction > 0.25 * fraction.max()).nonzero()[:, 0].float() * scan.spacing_mm
        places.append((inside.min(), inside.max()))
    low, high = torch.tensor(places).flip(0).T
    return low, high


def box(scan: Scan) -> Tensor:
    """Return where the imaged box's middle lies from the gland's centroid, and its size; (6), mm, x, y, z."""
    low, high = imaged(scan)
    return torch.cat(((low + high) / 2 - scan.center_mm(), high - low))


def height_correlations(some: list[Scan]) -> Tensor:
    """Correlate brightness at each height of the box with the gland's height in it, over scans: (columns, bands, 12).

    Brightness is relative to the mean of its column and band.
    """
    profiles, heights = [], []
    for scan in some:
        low, high = imaged(scan)
        middle = (low + high) / 2
        rows = []
        for left, right in COLUMNS_MM.values():
            for near, far in BANDS_MM:
                axes = (torch.linspace(-29, 29, HEIGHTS), torch.linspace(near, far, 4), torch.linspace(left, right, 6))
                z, y, x = torch.meshgrid(*axes, indexing="ij")
                points = torch.stack((middle[0] + x, high[1] - y, middle[2] + z), -1)
                row = scan.at(points.flatten(0, 2))[0].view(HEIGHTS, -1).mean(1)
                rows.append(row / row.mean().clamp(min=0.05))
        profiles.append(torch.stack(rows))
        heights.append(scan.center_mm()[2] - middle[2])
    values, height = torch.stack(profiles), torch.stack(heights)
    values, height = values - values.mean(0), height - height.mean()
    scale = values.square().sum(0).sqrt() * height.square().sum().sqrt()
    found = (values * height[:, None, None]).sum(0) / scale.clamp(min=1e-9)
    return found.view(len(COLUMNS_MM), len(BANDS_MM), HEIGHTS)


def by_depth(scan: Scan) -> Tensor:
    """Return the mean brightness by depth from the probe, inside and outside the gland, (2, depths), NaN where none."""
    z, y, x = torch.meshgrid(*[torch.arange(size) * scan.spacing_mm for size in scan.image.shape], indexing="ij")
    center, seen = scan.center_mm(), scan.image > SEEN
    middle = seen & ((x - center[0]).abs() < 4) & ((z - center[2]).abs() < 8)
    if not bool(middle.any()):
        return torch.full((2, len(DEPTHS_MM)), torch.nan)
    face = torch.quantile(y[middle], 0.98) + PROBE_MM
    depth = torch.hypot(x - center[0], face - y) - PROBE_MM
    near = seen & ((z - center[2]).abs() < 20) & (torch.atan2(x - center[0], face - y).abs() < 0.7)
    rows = []
    for part in (scan.gland, ~scan.gland):
        shells = [near & part & (depth >= at) & (depth < at + DEPTHS_MM[1]) for at in DEPTHS_MM]
        rows.append([float(scan.image[shell].mean()) if shell.sum() > 80 else torch.nan for shell in shells])
    return torch.tensor(rows)


def across(scan: Scan) -> Tensor:
    """Return the brightness across the gland's border along rays from its centroid, (rays, places)."""
    steps, rows = torch.arange(0, 70, 0.5), []
    for ray in RAYS.values():
        way = torch.tensor(ray, dtype=torch.float32)
        _, inside = scan.at(scan.center_mm() + steps[:, None] * way)
        edge = float(steps[inside].max()) if bool(inside.any()) else 0.0
        rows.append(scan.at(scan.center_mm() + (edge + torch.tensor(BORDER_MM))[:, None] * way)[0])
    return torch.stack(rows)


@torch.no_grad()
def criticised(path: Path, dataset: PairDataset) -> dict[str, float]:
    """Let a network register a dataset's pairs from 0 to 20 mm, and mark their glands."""
    stage = load_stage(path)
    if not isinstance(stage.network, CorrespondenceReg):
        raise InputError(f"{path}: a critic is a network 'correspondence', this is '{stage.settings.network}'")
    network, generator = stage.network.eval().float(), torch.Generator().manual_seed(7)
    found: dict[str, list[Tensor]] = {"initial": [], "SRE": [], "Dice MR": [], "Dice US": []}
    for first in range(0, len(dataset), 20):
        index = torch.arange(first, min(first + 20, len(dataset)))
        batch = draw_batch(dataset, index, stage.settings, (0.0, 20.0), NO_AUGMENTATION, generator, masks=True)
        answer = network.match(batch.fixed, batch.moving)
        parameters = answer.motion.to_parameters(torch.zeros(3))
        found["initial"].append(correction_error_mm(torch.zeros_like(parameters), batch))
        found["SRE"].append(correction_error_mm(parameters, batch))
        for name, logits, truth in (
            ("MR", answer.fixed_structure, batch.fixed_mask),
            ("US", answer.moving_structure, batch.moving_mask),
        ):
            if truth is None:
                raise InputError("every case needs masks of both images")
            marked = logits.sigmoid()
            both = (marked.flatten(1) + truth.flatten(1)).sum(1)
            found[f"Dice {name}"].append(2 * (marked * truth).flatten(1).sum(1) / both)
    return {name: float(torch.cat(values).mean()) for name, values in found.items()}


def tables(datasets: dict[str, PairDataset], critics: list[Path]) -> list[str]:
    """Measure and format all that is asked for; `datasets` are named real and simulated."""
    of_moving = {name: scans(dataset, moving=True) for name, dataset in datasets.items()}
    lines = ["| imaged box, mm | side | front-back | up | width | depth | length |", "|---|---|---|---|---|---|---|"]
    for name, some in of_moving.items():
        values = torch.stack([box(scan) for scan in some])
        figures = [f"{mean:.1f} ± {sd:.1f}" for mean, sd in zip(values.mean(0), values.std(0), strict=True)]
        lines.append(f"| {name} | {' | '.join(figures)} |")
    lines += ["", _head("ultrasound by depth, mm", DEPTHS_MM), _rule(DEPTHS_MM)]
    for name, some in of_moving.items():
        inside, outside = torch.stack([by_depth(scan) for scan in some]).nanmean(0)
        lines += [_row(f"{name}, in the gland", inside), _row(f"{name}, around it", outside)]
    correlations = {name: height_correlations(some) for name, some in of_moving.items()}
    heights = tuple(round(float(at)) for at in torch.linspace(-29, 29, HEIGHTS))
    lines += ["", _head("goes with the gland's height, by mm above the box's middle", heights), _rule(heights)]
    for n, (near, far) in enumerate(BANDS_MM):
        lines += [_row(f"{name}, {near}-{far} mm deep", found[0, n]) for name, found in correlations.items()]
    agreement = torch.corrcoef(torch.stack([cue.flatten() for cue in correlations.values()]))[0, 1]
    lines += ["", f"agreement of all {correlations['real'].numel()} of them: {agreement:.2f}"]
    for title, moving in (("MR", False), ("ultrasound", True)):
        lines += ["", _head(f"{title}: mm from the gland's border", BORDER_MM), _rule(BORDER_MM)]
        rays = {
            name: torch.stack([across(scan) for scan in scans(dataset, moving)]).mean(0)
            for name, dataset in datasets.items()
        }
        lines += [_row(f"{ray}, {name}", values[n]) for n, ray in enumerate(RAYS) for name, values in rays.items()]
    if critics:
        lines += ["", "| critic | pairs | initial, mm | SRE, mm | Dice MR | Dice US |", "|---|---|---|---|---|---|"]
    for path in critics:
        for name, dataset in datasets.items():
            figures = [f"{value:.2f}" for value in criticised(path, dataset).values()]
            lines.append(f"| {path.parent.name} | {name} | {' | '.join(figures)} |")
    return lines


def _head(first: str, places: tuple[int, ...]) -> str:
    return f"| {first} | {' | '.join(map(str, places))} |"


def _rule(places: tuple[int, ...]) -> str:
    return "|---" * (len(places) + 1) + "|"


def _row(name: str, values: Tensor) -> str:
    return f"| {name} | {' | '.join(f'{value:.2f}' for value in values.tolist())} |"


def main() -> int:
    """Read, simulate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--orientation-correction", type=int, default=0, choices=(0, 90, 180, 270))
    parser.add_argument("--count", type=int, default=80, help="simulated pairs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=5, help="of the simulated pairs (default: %(default)s)")
    parser.add_argument("--critic", type=Path, nargs="*", default=[], help="networks trained on real pairs")
    given = parser.parse_args()
    try:
        cases = read_manifest(given.manifest, given.split)
        real = rotated(
            dataset_from_cases((load_case(case) for case in cases), STAGE), given.orientation_correction // 90
        )
        simulated = dataset_from_simulation(given.count, given.seed, STAGE)
        print("\n".join(tables({"real": real, "simulated": simulated}, given.critic)))
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
