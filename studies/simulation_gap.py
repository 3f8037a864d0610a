"""How simulated pairs differ from real ones: `python studies/simulation_gap.py MANIFEST [--count 224] [--seed 0]`.

Cuts the crops that a network sees (32^3 at 2.5 mm about the gland) from the manifest's train split and from simulated
pairs, measures both, and prints for each measure the quartiles and the fraction of real cases inside the middle 90 % of
the fakes. Three figures over all measures follow: how well a linear and a nearest-neighbour classifier tell real from
fake (AUC, 0.5 is none), and the coverage, the fraction of real cases with a fake about as near as their next real ones.
Both scans are brought to the frame of the published pairs: probe at -x, bladder at +z.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
import scipy.spatial
import torch
from torch import Tensor

from crossalign.data import load_case, read_manifest
from crossalign.errors import CrossalignError
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, scale_intensity, to_working_spacing
from crossalign.simulation import SimulationSettings, simulate_pairs

SIZE, STEP_MM = 32, 2.5
Measures = dict[str, float]


@dataclass(frozen=True, eq=False)
class Crops:
    """What the network sees of one pair, (z, y, x) at 2.5 mm, the moving crop about the reference's centre."""

    fixed: np.ndarray
    fixed_gland: np.ndarray
    moving: np.ndarray
    moving_gland: np.ndarray
    rotation_deg: float
    patient: str


def real_crops(manifest: str) -> list[Crops]:
    """Read the train split; the header's axes are taken as they are."""
    found = []
    for case in read_manifest(manifest, "train"):
        loaded = load_case(case)
        if loaded.moving_mask is None:
            raise CrossalignError(f"case {case.name}: simulation_gap needs the moving gland: name it in moving_mask")
        glands = (loaded.fixed_mask.foreground(), loaded.moving_mask.foreground())
        found.append(_crops(loaded.fixed, loaded.moving, glands, loaded.fixed_to_moving, 0, case.patient))
    return found


def fake_crops(count: int, seed: int, settings: SimulationSettings | None = None) -> list[Crops]:
    """Simulate pairs, and rotate them as the published pairs are."""
    settings = settings or SimulationSettings()
    settings = replace(settings, pose=replace(settings.pose, rotated_fraction=0.0))
    pairs = simulate_pairs(count, torch.Generator().manual_seed(seed), settings)
    found = []
    for k in range(count):
        fixed, moving, *glands = (
            Image(volume[k, 0].float(), grid)
            for volume, grid in (
                (pairs.fixed, pairs.fixed_grid),
                (pairs.moving, pairs.moving_grid),
                (pairs.fixed_mask, pairs.fixed_grid),
                (pairs.moving_mask, pairs.moving_grid),
            )
        )
        rigid = pairs.fixed_to_moving[k].to("cpu", torch.float64)
        found.append(_crops(fixed, moving, (glands[0], glands[1]), rigid, -1, f"fake{k}"))
    return found


def _crops(
    fixed: Image, moving: Image, glands: tuple[Image, Image], fixed_to_moving: Rigid, turns: int, patient: str
) -> Crops:
    center = glands[0].grid.points_mm()[glands[0].voxels > 0.5].double().mean(0)
    middle = fixed_to_moving.apply(center[None])[0]

    def cut(image: Image, at: Tensor) -> np.ndarray:
        x, y, z = at.tolist()
        grid = Grid.centered((x, y, z), (SIZE,) * 3, (STEP_MM,) * 3)
        voxels = to_working_spacing(image, STEP_MM).resampled(grid, fill=0.0).voxels
        return np.ascontiguousarray(torch.rot90(voxels, turns, (1, 2)).numpy())

    return Crops(
        cut(scale_intensity(fixed), center),
        cut(glands[0], center) > 0.5,
        cut(scale_intensity(moving), middle),
        cut(glands[1], middle) > 0.5,
        float(fixed_to_moving.angle_deg()),
        patient,
    )


def measure(crops: Crops) -> Measures:
    """Take all measures of one pair; lengths in mm, intensities in the range 0..1 that the network sees."""
    measures: Measures = {}
    for name, image, gland in (("mr", crops.fixed, crops.fixed_gland), ("us", crops.moving, crops.moving_gland)):
        measures |= {f"{name} {key}": value for key, value in _regions(image, gland).items()}
    measures |= {f"us {key}": value for key, value in _along_the_beam(crops.moving, crops.moving_gland).items()}
    measures |= {f"gland {key}": value for key, value in _shape(crops.fixed_gland).items()}
    volumes = crops.fixed_gland.sum(), crops.moving_gland.sum()
    return measures | {"volume ratio": float(volumes[1] / volumes[0]), "rotation deg": crops.rotation_deg}


def _regions(image: np.ndarray, gland: np.ndarray) -> Measures:
    distance = STEP_MM * (scipy.ndimage.distance_transform_edt(~gland) - scipy.ndimage.distance_transform_edt(gland))
    seen = image > 0.01
    regions = {
        "gland": (distance < -2.5) & seen,
        "rim": (abs(distance) <= 4) & seen,
        "shell": (distance > 2.5) & (distance < 12) & seen,
        "far": (distance > 15) & seen,
    }
    slope = np.sqrt(sum(part**2 for part in np.gradient(image, STEP_MM)))
    found: Measures = {"empty fraction": float(1 - seen.mean()), "gland seen": float(seen[gland].mean())}
    for name, inside in regions.items():
        values = image[inside] if inside.sum() > 8 else np.zeros(9)
        slopes = slope[inside] if inside.sum() > 8 else np.ones(9)
        found[f"{name} mean"], found[f"{name} sd"] = float(values.mean()), float(values.std())
        found[f"{name} slope /cm"] = float(10 * slopes.mean())
        # Of a stationary signal: small where it changes fast, about the blur's width times 1.4.
        found[f"{name} length mm"] = float(values.std() / max(1e-6, np.sqrt((slopes**2).mean() / 3)))
    noise = image - scipy.ndimage.median_filter(image, 3)
    found["gland grain"] = float(noise[regions["gland"]].std()) if regions["gland"].any() else 0.0
    found["contrast"] = found["gland mean"] - found["shell mean"]
    for name, step in (("above", 1), ("below", -1), ("behind", 0), ("before", 2)):
        found[f"{name} - gland"] = _beside(image, gland, step) - found["gland mean"]
    return found


def _beside(image: np.ndarray, gland: np.ndarray, way: int) -> float:
    """Mean of what lies 4 to 14 mm above (1), below (-1), behind (0) or before (2) the gland's middle part."""
    z, y, x = np.nonzero(gland)
    middle = [slice(int(np.percentile(a, 25)), int(np.percentile(a, 75)) + 1) for a in (z, y, x)]
    axis = 0 if way in (1, -1) else 2
    upwards = way in (1, 2)
    edge = (z, y, x)[axis].max() if upwards else (z, y, x)[axis].min()
    middle[axis] = slice(edge + 2, edge + 6) if upwards else slice(max(0, edge - 5), max(0, edge - 1))
    part = image[tuple(middle)]
    return float(part.mean()) if part.size else 0.0


def _along_the_beam(image: np.ndarray, gland: np.ndarray) -> Measures:
    """Measure the profile away from the probe through the gland's middle, and where the sector lies."""
    z, y, x = (round(float(a.mean())) for a in np.nonzero(gland))
    seen = image > 0.02
    column = image[z - 3 : z + 4, y - 3 : y + 4]
    line = column.mean((0, 1))
    filled = np.nonzero(seen[z - 3 : z + 4, y - 3 : y + 4].mean((0, 1)) > 0.5)[0]
    first, last = (int(filled[0]), int(filled[-1])) if len(filled) else (0, 0)
    back = np.nonzero(gland[z - 3 : z + 4, y - 3 : y + 4].any((0, 1)))[0]
    bands = {f"at {low}-{low + 10} mm": line[first + round(low / STEP_MM) :][:4] for low in (0, 10, 20, 30, 40)}
    found = {key: float(band.mean()) if band.size else 0.0 for key, band in bands.items()}
    found |= {
        "gap mm": STEP_MM * float(back[0] - first),
        "depth mm": STEP_MM * float(last - first),
        "beyond mm": STEP_MM * float(last - back[-1]),
        "width mm": STEP_MM * float(seen[z, :, x].sum()),
        "width near mm": STEP_MM * float(seen[z, :, min(first + 3, SIZE - 1)].sum()),
        "height mm": STEP_MM * float(seen[:, y, x].sum()),
    }
    sides = image[:, :, max(first, x - 2) : x + 3].mean((0, 2))
    found["sides to middle"] = float((sides[y - 10 : y - 6].mean() + sides[y + 7 : y + 11].mean()) / 2) / max(
        1e-3, float(sides[y - 3 : y + 4].mean())
    )
    return found


def _shape(gland: np.ndarray) -> Measures:
    z, y, x = np.nonzero(gland)
    extents = {name: float(np.ptp(a) + 1) for name, a in (("height", z), ("width", y), ("depth", x))}
    found = {f"{name} mm": STEP_MM * value for name, value in extents.items()}
    found["volume ml"] = float(gland.sum() * STEP_MM**3 / 1000)
    found["fill"] = float(gland.sum()) / float(np.prod(list(extents.values())))
    widths = gland.any(2).sum(1).astype(float)
    rows = np.interp(np.linspace(z.min(), z.max(), 11), np.arange(SIZE), widths) / widths.max()
    found |= {"width at 10 %": rows[1], "width at 30 %": rows[3], "width at 90 %": rows[9]}
    found["fill of hull"] = _hull_fill(gland)
    return {key: float(value) for key, value in found.items()}


def _hull_fill(gland: np.ndarray) -> float:
    rim = gland & ~scipy.ndimage.binary_erosion(gland)
    return float(gland.sum()) / scipy.spatial.ConvexHull(np.argwhere(rim)).volume


def table(crops: Iterable[Crops]) -> tuple[list[str], np.ndarray]:
    """Measure all pairs: names and values (n, m)."""
    rows = [measure(pair) for pair in crops]
    return list(rows[0]), np.array([list(row.values()) for row in rows])


def auc(real: np.ndarray, fake: np.ndarray) -> float:
    """Say how often a real score exceeds a fake one."""
    return float((real[:, None] > fake).mean() + (real[:, None] == fake).mean() / 2)


def standardised(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring each measure to mean 0 and sd 1 over the two sets, weighed equally; extremes are cut at 4 sd."""
    middle = (real.mean(0) + fake.mean(0)) / 2
    scale = np.sqrt((((real - middle) ** 2).mean(0) + ((fake - middle) ** 2).mean(0)) / 2) + 1e-9
    return ((real - middle) / scale).clip(-4, 4), ((fake - middle) / scale).clip(-4, 4)


def linear_auc(real: np.ndarray, fake: np.ndarray, real_fold: np.ndarray, folds: int = 5) -> float:
    """Cross-validate a linear discriminant with a ridge; `real_fold` (n,) keeps a patient in one fold."""
    fake_fold = np.arange(len(fake)) % folds
    scores, truths = [], []
    for fold in range(folds):
        a, b = real[real_fold != fold], fake[fake_fold != fold]
        covariance = (np.cov(a.T) + np.cov(b.T)) / 2 + 0.5 * np.eye(real.shape[1])
        direction = np.linalg.solve(covariance, a.mean(0) - b.mean(0))
        offset = (a.mean(0) + b.mean(0)) @ direction / 2
        scores += [real[real_fold == fold] @ direction - offset, fake[fake_fold == fold] @ direction - offset]
        truths += [np.ones((real_fold == fold).sum()), np.zeros((fake_fold == fold).sum())]
    score, truth = np.concatenate(scores), np.concatenate(truths)
    return auc(score[truth == 1], score[truth == 0])


def neighbour_auc(real: np.ndarray, fake: np.ndarray, patients: list[str], near: int = 5) -> float:
    """Score each pair by its distance to the `near`th fake over that to the `near`th real one, own patient left out."""
    every = np.concatenate((real, fake))
    to_real, to_fake = (scipy.spatial.distance.cdist(every, part) for part in (real, fake))
    same = np.array(patients)[:, None] == np.array(patients)
    to_real[: len(real)][same] = np.inf
    to_fake[len(real) :][np.eye(len(fake), dtype=bool)] = np.inf
    # As many fakes as reals must count: the distance to the k-th of n shrinks with n.
    far = round(near * len(fake) / len(real))
    score = np.log(np.sort(to_fake, 1)[:, far - 1] / np.sort(to_real, 1)[:, near - 1])
    return auc(score[: len(real)], score[len(real) :])


def coverage(real: np.ndarray, fake: np.ndarray, patients: list[str], near: int = 5) -> float:
    """Fraction of real cases with a fake nearer than the `near`th real case of another patient."""
    between = scipy.spatial.distance.cdist(real, real)
    between[np.array(patients)[:, None] == np.array(patients)] = np.inf
    return float((scipy.spatial.distance.cdist(real, fake).min(1) < np.sort(between, 1)[:, near - 1]).mean())


def summary(real: np.ndarray, fake: np.ndarray, patients: list[str]) -> dict[str, float]:
    """Compute the three figures over all measures."""
    names = sorted(set(patients))
    fold = np.array([names.index(patient) % 5 for patient in patients])
    a, b = standardised(real, fake)
    return {
        "linear AUC": linear_auc(a, b, fold),
        "neighbour AUC": neighbour_auc(a, b, patients),
        "coverage": coverage(a, b, patients),
    }


def lines(names: list[str], real: np.ndarray, fake: np.ndarray) -> list[str]:
    """Format the table."""
    low, high = np.percentile(fake, [5, 95], axis=0)
    inside = ((real >= low - 1e-9) & (real <= high + 1e-9)).mean(0)
    result = ["| measure | real: 25, 50, 75 % | fake: 25, 50, 75 % | AUC | real inside |", "|---|---|---|---|---|"]
    for k, name in enumerate(names):
        quartiles = [" ".join(f"{v:.3g}" for v in np.percentile(part[:, k], [25, 50, 75])) for part in (real, fake)]
        apart = auc(real[:, k], fake[:, k])
        result.append(f"| {name} | {quartiles[0]} | {quartiles[1]} | {apart:.2f} | {inside[k]:.2f} |")
    result.append(f"| mean over measures | | | | {inside.mean():.2f} |")
    return result


def main() -> int:
    """Read the options, print the table and the three figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", help="manifest of real pairs; its train split alone is read")
    parser.add_argument("--count", type=int, default=224, help="simulated pairs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulated pairs (default: %(default)s)")
    given = parser.parse_args()
    try:
        crops = real_crops(given.manifest)
        names, real = table(crops)
        _, fake = table(fake_crops(given.count, given.seed))
    except CrossalignError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines(names, real, fake)))
    for name, value in summary(real, fake, [pair.patient for pair in crops]).items():
        print(f"{name}: {value:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
