"""A folder with the files of a small case, and manifests that point to them."""

from pathlib import Path

import torch

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform

FIXED_GRID = Grid(
    (10, 12, 14), (1.0, 1.5, 2.0), (-5.0, 3.0, 40.0), ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
)
MOVING_GRID = Grid((9, 11, 13), (2.0, 1.5, 1.0), (100.0, 20.0, -30.0))
REFERENCE = Rigid.from_parameters(
    torch.tensor([1.0, -2.0, 3.0, 4.0, -5.0, 6.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
)
HEADER = "case,split,fixed,moving,fixed_mask,reference"
ROW = "{case},{split},mr.nii.gz,us.nrrd,gland.nii.gz,truth.tfm"


def gland(grid: Grid) -> LabelMap:
    labels = torch.zeros(grid.shape, dtype=torch.int64)
    labels[2:7, 3:9, 4:10] = 2
    return LabelMap(labels, grid)


def write_case(folder: Path) -> Path:
    """Write an MR, an ultrasound, their glands, the truth and landmarks into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    write_image(Image(torch.rand(FIXED_GRID.shape, generator=generator), FIXED_GRID), folder / "mr.nii.gz")
    write_image(Image(torch.rand(MOVING_GRID.shape, generator=generator), MOVING_GRID), folder / "us.nrrd")
    write_label_map(gland(FIXED_GRID), folder / "gland.nii.gz")
    write_label_map(gland(MOVING_GRID), folder / "us_gland.nii.gz")
    write_transform(REFERENCE, folder / "truth.tfm")
    (folder / "points.csv").write_text(
        "name,mr_x,mr_y,mr_z,us_x,us_y,us_z\nurethra,1,2,3,4,5,6\napex,-1,0.5,1e1,0,0,0\n"
    )
    return folder


def write_manifest(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "cases.csv"
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return path
