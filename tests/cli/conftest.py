"""A small pair on disk, with everything that a command may ask for."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform

FLIPPED = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
GRID = Grid((24, 26, 28), (2.0, 2.0, 2.0), (60.0, 20.0, -30.0), FLIPPED)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with mr, us, gland, us_gland (.nii.gz), start.tfm (8 mm or so off), reference.tfm, manifest.csv."""
    folder = tmp_path_factory.mktemp("pair")
    noise = torch.randn(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(1))
    fixed = Image(F.interpolate(noise, size=GRID.shape, mode="trilinear")[0, 0], GRID)
    inside = (GRID.points_mm() - GRID.center_mm()).norm(dim=-1) < 15
    gland = LabelMap(inside.long(), GRID)
    parameters = torch.tensor([150.0, -40.0, 10.0, 5.0, 10.0, -15.0], dtype=torch.float64)
    truth = Rigid.from_parameters(parameters, GRID.center_mm())
    x, y, z = (GRID.center_mm() + parameters[:3]).tolist()
    moving_grid = Grid.centered((x, y, z), (28, 28, 28), (2.0, 2.0, 2.0))
    write_image(fixed, folder / "mr.nii.gz")
    write_label_map(gland, folder / "gland.nii.gz")
    write_image(fixed.resampled(moving_grid, truth.inverse()), folder / "us.nii.gz")
    write_label_map(gland.resampled(moving_grid, truth.inverse()), folder / "us_gland.nii.gz")
    write_transform(truth, folder / "reference.tfm")
    off = torch.tensor([6.0, -4.0, 3.0, 4.0, 0.0, -4.0], dtype=torch.float64)
    write_transform(truth @ Rigid.from_parameters(off, GRID.center_mm()), folder / "start.tfm")
    row = "{n},{split},mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm,us_gland.nii.gz\n"
    (folder / "manifest.csv").write_text(
        "case,split,fixed,moving,fixed_mask,reference,moving_mask\n"
        + row.format(n="a", split="test")
        + row.format(n="b", split="val")
    )
    return folder
