"""A made-up site on disk: patients whose ultrasound is the inverse of their MR, and a small model to adapt."""

from pathlib import Path

import torch
from tests.training.toys import SIZE, SPACING_MM, TINY, Anatomy

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform
from crossalign.models import Calibration, Card, Ensemble, Model, RunSettings, Stage, save_model
from crossalign.networks.crop import crop_points
from crossalign.training.tasks.registration import seeded_network


def write_site(folder: Path, patients: int, seed: int = 0) -> Path:
    """Write a folder for each patient: p0, p1, ... with every file that a site may have."""
    generator = torch.Generator().manual_seed(seed)
    lattice = crop_points((SIZE, SIZE, SIZE), SPACING_MM)
    for number in range(patients):
        anatomy, home = Anatomy(generator), folder / f"p{number}"
        home.mkdir(parents=True)
        center = torch.rand(3, generator=generator, dtype=torch.float64) * 60
        drawn = torch.rand(6, generator=generator, dtype=torch.float64) * 2 - 1
        reference = Rigid.from_parameters(drawn * torch.tensor([40.0, 40, 40, 6, 6, 6], dtype=torch.float64), center)
        middle = reference.apply(center[None])[0]
        there = reference.inverse().apply((lattice + middle).flatten(0, 2)).reshape(lattice.shape) - center
        for at, offsets, image, gland, inverted in (
            (center, lattice, "mr", "mr_gland", False),
            (middle, there, "us", "us_gland", True),
        ):
            x, y, z = at.tolist()
            grid = Grid.centered((x, y, z), (SIZE,) * 3, (SPACING_MM,) * 3)
            content = anatomy(offsets).float()
            write_image(Image(1.2 - content if inverted else content, grid), home / f"{image}.nii.gz")
            inside = (offsets / anatomy.half_axes_mm).square().sum(-1) < 1
            write_label_map(LabelMap(inside.long(), grid), home / f"{gland}.nii.gz")
        write_transform(reference, home / "reference.tfm")
    return folder


def without(folder: Path, *names: str) -> Path:
    """Remove files of every patient."""
    for home in folder.iterdir():
        for name in names:
            (home / name).unlink()
    return folder


def write_model(path: Path, stages: int = 1, calibration: Calibration | None = None, offset_mm: float = 0.0) -> Path:
    """Write untrained small networks, one alone or an ensemble; `offset_mm` is added to each answer's translation."""
    parts = []
    for seed in range(stages):
        network = seeded_network(TINY, seed)
        last = [value for name, value in network.named_parameters() if name.endswith("bias") and value.shape == (6,)][
            -1
        ]
        with torch.no_grad():
            last[:3] += offset_mm
        parts.append(Stage(network, TINY, {}))
    arrangement = parts[0] if stages == 1 else Ensemble(tuple(parts))
    save_model(Model(arrangement, RunSettings(), calibration, Card("toy", data="none"), initial_stage=stages), path)
    return path
