"""Pairs that a registration should be trusted on, and pairs on which it fails, with what is known of the answer."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from crossalign.data import LoadedCase, load_case, read_manifest
from crossalign.geometry import Grid, Rigid, axis_orientations, draw_perturbation, quarter_turn
from crossalign.images import Image, LabelMap, read_image, read_mask, surface_points
from crossalign.registration.pose_prior import TRANSRECTAL
from crossalign.simulation import SimulatedPairs, simulate_pairs, simulate_shapes
from crossalign.types import Points

ORDINARY, FAR, CUT = "ordinary", "far start", "cut field of view"
TURNED, OTHER_PATIENT, MR_MR = "wrong orientation", "wrong patient", "MR against MR"
ORGAN, PHANTOM, NOISE, CONSTANT = "another organ", "phantom", "noise", "constant"
SETS = (ORDINARY, FAR, CUT, TURNED, OTHER_PATIENT, MR_MR, ORGAN, PHANTOM, NOISE, CONSTANT)
USUAL_MM, FAR_MM, NEAR_MM = (0.0, 20.0), (20.0, 40.0), (0.0, 10.0)
CUT_MM = (10.0, 20.0)
BALL_MM = 25.0  # radius of the structure where a scan has no mask


@dataclass(frozen=True, eq=False)
class KnownCase:
    """A pair with its answer. `truth` maps fixed to moving points; `orientation_deg` corrects both headers."""

    source: str
    name: str
    patient: str
    fixed: Image
    moving: Image
    mask: LabelMap
    truth: Rigid
    moving_mask: LabelMap | None = None
    orientation_deg: int = 0

    def points_mm(self) -> Points:
        """Points (n, 3) of the structure's surface, over which errors are measured."""
        return surface_points(self.mask)


@dataclass(frozen=True, eq=False)
class Trial:
    """One registration of a set: the case as it is given, and the initial transform."""

    group: str
    case: KnownCase
    initial: Rigid


def cases_of_manifest(path: Path, source: str, orientation_deg: int, limit: int | None = None) -> list[KnownCase]:
    """Read a manifest's cases; of each split `limit`."""
    cases = []
    for split in ("train", "val", "test"):
        rows = [case for case in read_manifest(path) if case.split == split]
        cases += [_known(load_case(row), f"{source} {split}", orientation_deg) for row in rows[:limit]]
    return cases


def _known(case: LoadedCase, source: str, orientation_deg: int) -> KnownCase:
    truth, gland = case.fixed_to_moving, case.moving_mask
    return KnownCase(
        source, case.name, case.patient, case.fixed, case.moving, case.fixed_mask, truth, gland, orientation_deg
    )


def simulated_cases(count: int, seed: int) -> list[KnownCase]:
    """Simulate MR and ultrasound of pelves."""
    return _simulated(simulate_pairs(count, torch.Generator().manual_seed(seed)), "simulated", "pelvis")


def phantom_cases(count: int, seed: int) -> list[KnownCase]:
    """Simulate phantoms: random shapes in two modalities, and every third time a ball in a uniform block."""
    cases = _simulated(simulate_shapes(count, torch.Generator().manual_seed(seed)), "phantom", "phantom")
    return [_block(case) if index % 3 == 2 else case for index, case in enumerate(cases)]


def _simulated(pairs: SimulatedPairs, source: str, title: str) -> list[KnownCase]:
    cases = []
    for index in range(len(pairs.fixed)):
        masks = (pairs.fixed_mask[index, 0], pairs.moving_mask[index, 0])
        grids = (pairs.fixed_grid, pairs.moving_grid)
        fixed, moving = (LabelMap((m > 0.5).long(), grid) for m, grid in zip(masks, grids, strict=True))
        images = (pairs.fixed[index, 0], pairs.moving[index, 0])
        first, second = (Image(one, grid, title) for one, grid in zip(images, grids, strict=True))
        truth, name = pairs.fixed_to_moving[index].to("cpu", torch.float64), f"{title}{index}"
        cases.append(KnownCase(source, name, name, first, second, fixed, truth, moving))
    return cases


def _block(case: KnownCase) -> KnownCase:
    """Replace both images by uniform blocks with a ball in each."""
    images = []
    for image, center in ((case.fixed, case.mask.centroid_mm()), (case.moving, _center_mm(case.moving_mask))):
        radius = (_positions_mm(image.grid) - center).norm(dim=-1)
        images.append(replace(image, voxels=0.4 + 0.3 * (radius < 0.8 * BALL_MM).float()))
    return replace(case, fixed=images[0], moving=images[1], source="phantom block")


def other_organs(sts: Path | None, brain: Path | None, split: str, limit: int | None) -> Iterator[KnownCase]:
    """Read T1 with CT and with PET of limbs (the tumour is the structure), and, to judge, of heads (a ball)."""
    if sts is not None:
        with (sts / "cases.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        for row in rows[:limit]:
            fixed, mask = read_image(sts / row["t1"]), read_mask(sts / row["t1_mass"])
            for kind in ("ct", "pet"):
                moving = read_image(sts / row[kind])
                name = f"{row['case']}-{kind}"
                yield KnownCase(f"sts {split}", name, row["case"], fixed, moving, mask, Rigid.identity())
    if brain is not None and split == "val":
        for title, t1, pet in (
            ("brainweb", "brainweb06_t1_2mm", "brainweb06_pet_2mm"),
            ("spm", "spm12_T1", "spm12_PET"),
        ):
            fixed, moving = (read_image(brain / f"{name}.nii.gz") for name in (t1, pet))
            yield KnownCase("brain", title, title, fixed, moving, _ball(fixed.grid), Rigid.identity())


def trials_of(case: KnownCase, other: KnownCase, starts: int, generator: torch.Generator) -> Iterator[Trial]:
    """Draw the trials of one prostate: ordinary ones, and failures; `other` is another patient of the same kind."""
    points = case.points_mm()
    for _ in range(starts):
        yield Trial(ORDINARY, case, _start(case.truth, points, USUAL_MM, generator))
    yield Trial(FAR, case, _start(case.truth, points, FAR_MM, generator))
    yield Trial(CUT, cut(case, generator), _start(case.truth, points, USUAL_MM, generator))
    initial = _start(case.truth, points, USUAL_MM, generator)
    yield turned(case, initial, generator)
    swapped = with_ultrasound_of(case, other)
    yield Trial(OTHER_PATIENT, swapped, _start(swapped.truth, points, USUAL_MM, generator))
    same = replace(case, moving=case.fixed, truth=Rigid.identity(), moving_mask=case.mask)
    yield Trial(MR_MR, same, _start(same.truth, points, USUAL_MM, generator))


def trials_elsewhere(group: str, cases: Sequence[KnownCase], generator: torch.Generator) -> Iterator[Trial]:
    """Draw one trial of each case that shows no prostate, from a small known offset."""
    for case in cases:
        yield Trial(group, case, _start(case.truth, case.points_mm(), NEAR_MM, generator))


def trials_without_content(cases: Sequence[KnownCase], generator: torch.Generator) -> Iterator[Trial]:
    """Draw trials whose ultrasound is noise, smooth noise, or one value."""
    for index, case in enumerate(cases):
        shape = case.moving.voxels.shape
        noise = torch.rand(shape, generator=generator)
        if index % 2:
            noise = torch.nn.functional.avg_pool3d(noise[None, None], 5, 1, 2)[0, 0]
        initial = _start(case.truth, case.points_mm(), USUAL_MM, generator)
        yield Trial(NOISE, replace(case, moving=replace(case.moving, voxels=noise * 255)), initial)
        uniform = torch.full(shape, 100.0)
        yield Trial(CONSTANT, replace(case, moving=replace(case.moving, voxels=uniform)), initial)


def turned(case: KnownCase, initial: Rigid, generator: torch.Generator) -> Trial:
    """Turn the axes of the moving header about its centre by one of the 23 rotations that are not the identity.

    The initial transform brings the structure to the same place of the picture, as a user who believes the header does.
    """
    ways = axis_orientations().double()
    ways = ways[torch.linalg.det(ways) > 0][1:]
    way = ways[int(torch.randint(len(ways), (1,), generator=generator))]
    grid = case.moving.grid
    middle = grid.center_mm()
    turn = Rigid(way, middle - way @ middle)
    direction = way @ torch.tensor(grid.direction, dtype=torch.float64)
    origin = turn.apply(torch.tensor([grid.origin_mm], dtype=torch.float64))[0]
    x, y, z = direction.tolist()
    other = Grid(grid.shape, grid.spacing_mm, tuple(origin.tolist()), (tuple(x), tuple(y), tuple(z)))
    center = case.mask.centroid_mm()
    mapped = initial.apply(center[None])[0]
    shift = turn.apply(mapped[None])[0] - mapped
    believed = Rigid(initial.rotation, initial.translation_mm + shift)
    moved = replace(case, moving=replace(case.moving, grid=other), truth=turn @ case.truth, moving_mask=None)
    return Trial(TURNED, moved, believed)


def cut(case: KnownCase, generator: torch.Generator) -> KnownCase:
    """Cut 10 to 20 mm from one side of the moving image."""
    axis, far = (int(torch.randint(most, (1,), generator=generator)) for most in (3, 2))
    low, high = CUT_MM
    depth_mm = low + (high - low) * float(torch.rand(1, generator=generator))
    grid = case.moving.grid
    voxels = min(round(depth_mm / grid.spacing_mm[2 - axis]), grid.shape[axis] // 2)
    first, shape = [0, 0, 0], list(grid.shape)
    shape[axis] -= voxels
    first[axis] = 0 if far else voxels
    part = grid.part((first[0], first[1], first[2]), (shape[0], shape[1], shape[2]))
    kept = tuple(slice(a, a + n) for a, n in zip(first, shape, strict=True))
    return replace(case, moving=Image(case.moving.voxels[kept].contiguous(), part, case.moving.name), moving_mask=None)


def with_ultrasound_of(case: KnownCase, other: KnownCase) -> KnownCase:
    """Pair an MR with another patient's ultrasound; gland centre to gland centre, turned by the prior's mean.

    There is no right answer: this is the one that errors are measured from. Simulated scans are turned by nothing on
    average.
    """
    axes = quarter_turn(case.orientation_deg // 90)
    rotation = axes.mT @ TRANSRECTAL.rotation() @ axes
    if case.source == "simulated":
        rotation = torch.eye(3, dtype=torch.float64)
    shift = _center_mm(other.moving_mask) - rotation @ case.mask.centroid_mm()
    return replace(case, moving=other.moving, truth=Rigid(rotation, shift), moving_mask=other.moving_mask)


def _start(truth: Rigid, points: Points, range_mm: tuple[float, float], generator: torch.Generator) -> Rigid:
    low, high = range_mm
    target = low + (high - low) * torch.rand(1, generator=generator, dtype=torch.float64)
    return truth @ draw_perturbation(points[None].double(), points.double().mean(0)[None], target, generator)[0]


def _center_mm(mask: LabelMap | None) -> torch.Tensor:
    if mask is None:
        raise ValueError("this set needs the structure of the moving image")
    return mask.centroid_mm()


def _ball(grid: Grid) -> LabelMap:
    radius = (_positions_mm(grid) - grid.center_mm()).norm(dim=-1)
    return LabelMap((radius < BALL_MM).long(), grid)


def _positions_mm(grid: Grid) -> torch.Tensor:
    axes = [torch.arange(size, dtype=torch.float64) for size in grid.shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return grid.to_physical(torch.stack((x, y, z), -1).flatten(0, 2)).reshape(*grid.shape, 3)
