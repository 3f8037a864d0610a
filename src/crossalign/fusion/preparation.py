"""The published input: MRI and PET on a cube about the head, of 128 voxels a side, and on request in MNI space."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from crossalign.errors import ImageError, OutputError
from crossalign.extras import optional_module
from crossalign.fusion.alignment import AffineTransform, align, refine_affine, resampled_affine, write_affine
from crossalign.fusion.scaling import Scaling
from crossalign.fusion.windows import find_scaling
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, write_image, write_transform
from crossalign.output import reason, whole_file, write_text
from crossalign.registration import RegistrationResult
from crossalign.registration.result import VERDICT
from crossalign.types import Vector

CUBE_VOXELS = 128
CUBE_MM = 224.0  # the paper pads to 224 voxels of the 1 mm template
FOREGROUND = 0.05
OUTLIERS = 0.001  # fraction of the foreground that may lie outside its box on each side
# The paper's cube is for human heads: for anything smaller it is MARGIN times its longest side. A newborn's head is
# longer than SMALLEST_HEAD_MM, a head with neck and chest shorter than LARGEST_HEAD_MM.
SMALL_MM, SMALLEST_HEAD_MM, LARGEST_HEAD_MM = 60.0, 70.0, 600.0
MARGIN = 1.25
TEMPLATE_MM = 2.0


def cube_grid(mri: Image, voxels: int = CUBE_VOXELS) -> Grid:
    """Return the grid of the cube about the MRI's foreground: `voxels` a side, isotropic, axes along L, P and S.

    The side is 224 mm (the paper's), or the foreground's longest side where that is more; a foreground shorter than
    60 mm, no human head, gets a cube a quarter longer than itself. Raises ImageError for an MRI without foreground.
    """
    low, high = foreground_box_mm(mri)
    longest = float((high - low).max())
    side = max(CUBE_MM, longest) if longest >= SMALL_MM else MARGIN * longest
    x, y, z = ((low + high) / 2).tolist()
    return Grid.centered((x, y, z), (voxels,) * 3, (side / voxels,) * 3)


def foreground_box_mm(mri: Image) -> tuple[Vector, Vector]:
    """Return the corners, low and high (3,), LPS mm, of the box about what is brighter than 5 % of the scale.

    Means of 3^3 voxels are compared, and a thousandth of them may lie outside on each side, since noise in the air must
    not decide. Raises ImageError where nothing is so bright.
    """
    scaled = find_scaling(mri, "mr").apply(mri.voxels)
    means = F.avg_pool3d(scaled[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    bright = (means > FOREGROUND).nonzero().flip(-1)
    if len(bright) < 2:
        raise ImageError(f"{mri.name}: nothing in it is brighter than 5 % of its scale: is this an MRI?")
    points = mri.grid.to_physical(bright.double()).sort(dim=0).values
    outliers = int(len(points) * OUTLIERS)
    return points[outliers], points[len(points) - 1 - outliers]


def resampled_to_cube(mri: Image, pet: Image, voxels: int = CUBE_VOXELS) -> tuple[Image, Image]:
    """Resample both onto `cube_grid` (trilinear, as published); padding, and voxels beyond an image, show nothing."""
    grid, uptake = cube_grid(mri, voxels), find_scaling(pet, "pet")
    structure = find_scaling(mri, "mr").without_padding(mri)
    darkest = float(structure.voxels.min())
    return structure.resampled(grid, fill=darkest), uptake.without_padding(pet).resampled(grid, fill=uptake.low)


@dataclass(frozen=True, eq=False)
class PreparedPair:
    """A pair on one cube in MNI space, in [0, 1], and everything that was done to it.

    `mri_to_pet` maps MRI points to PET points, `template_to_mri` points of the template to MRI points (LPS, mm). Both
    images were resampled through `affine`, also from template to MRI, or where it is None through `template_to_mri`.
    """

    mri: Image
    pet: Image
    mri_scaling: Scaling
    pet_scaling: Scaling
    mri_to_pet: RegistrationResult
    template_to_mri: RegistrationResult
    affine: AffineTransform | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of both registrations; the reasons not to trust one of them come first."""
        reasons = tuple(f"{VERDICT}: {text}" for text in self.reasons)
        return (*reasons, *self.mri_to_pet.warnings, *self.template_to_mri.warnings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why one of the registrations is not to be trusted."""
        named = (("PET to MRI", self.mri_to_pet), ("MRI to template", self.template_to_mri))
        return tuple(f"{name}: {text}" for name, result in named for text in result.reasons)


def prepare_pair(mri: Image, pet: Image, voxels: int = CUBE_VOXELS, affine: bool = False) -> PreparedPair:
    """Register PET to MRI and the MRI to the MNI152 template, resample both once, crop to the head, and scale.

    Both registrations are rigid (mutual information): the anatomy retains its size. With `affine` the MRI's is then
    refined to an affine one, and the head takes the template's size. Axes become L, P and S. The cube of `voxels` a
    side is 224 mm long, or as long as the head where that is more. Raises ImageError for an MRI that shows no human
    head, by its size, InputError without nilearn, and what `register` and `refine_affine` raise.
    """
    _check_head(mri)
    template, brain = mni152_template()
    mri, pet = find_scaling(mri, "mr").without_padding(mri), find_scaling(pet, "pet").without_padding(pet)
    mri_to_pet = align(mri, pet)
    template_to_mri = align(template, mri, brain)
    rigid = template_to_mri.fixed_to_moving
    refined = refine_affine(template, mri, rigid, brain) if affine else None
    to_mri = refined or AffineTransform.of(rigid)
    grid = cube_grid(resampled_affine(mri, _grid_in_template(mri, rigid), to_mri), voxels)
    moved_mri = resampled_affine(mri, grid, to_mri)
    moved_pet = resampled_affine(pet, grid, AffineTransform.of(mri_to_pet.fixed_to_moving).after(to_mri))
    mri_scaling, pet_scaling = find_scaling(moved_mri, "mr"), find_scaling(moved_pet, "pet")
    return PreparedPair(
        mri=Image(mri_scaling.apply(moved_mri.voxels), grid, "mri"),
        pet=Image(pet_scaling.apply(moved_pet.voxels), grid, "pet"),
        mri_scaling=mri_scaling,
        pet_scaling=pet_scaling,
        mri_to_pet=mri_to_pet,
        template_to_mri=template_to_mri,
        affine=refined,
    )


def _check_head(mri: Image) -> None:
    low, high = foreground_box_mm(mri)
    longest = float((high - low).max())
    if not SMALLEST_HEAD_MM <= longest <= LARGEST_HEAD_MM:
        raise ImageError(
            f"{mri.name}: what it shows is {longest:.3g} mm long, expected a human head "
            f"({SMALLEST_HEAD_MM:g} to {LARGEST_HEAD_MM:g} mm): the preparation registers it to a template of one. "
            "Check the spacing in its header, or fuse the pair as it is (crossalign fuse --register)"
        )


def write_prepared_pair(pair: PreparedPair, folder: Path) -> None:
    """Write a folder: both images, both transforms and `prepared.json`; whole, or not at all. Raises OutputError."""
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {reason(error)}") from error
    try:
        write_image(pair.mri, folder / "mri.nii.gz")
        write_image(pair.pet, folder / "pet.nii.gz")
        write_transform(pair.mri_to_pet.fixed_to_moving, folder / "mri_to_pet.tfm")
        write_affine(pair.affine or AffineTransform.of(pair.template_to_mri.fixed_to_moving), folder / "mni_to_mri.tfm")
        with whole_file(folder / "prepared.json") as partial:
            write_text(json.dumps(_record(pair), indent=2) + "\n", partial)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # ours: it did not exist before
        raise


def mni152_template() -> tuple[Image, LabelMap]:
    """Return nilearn's MNI152 T1 template (skull-stripped, 2 mm) and its brain mask, LPS.

    Raises InputError where nilearn is not installed.
    """
    datasets = optional_module("nilearn.datasets", "the MNI152 template needs nilearn", "fusion-template")
    template = datasets.load_mni152_template(resolution=2)
    arrays = template.get_fdata(dtype=np.float32), datasets.load_mni152_brain_mask(resolution=2).get_fdata() > 0
    # nibabel has x first and RAS; here z is first and x runs to the left.
    voxels, inside = (torch.from_numpy(np.ascontiguousarray(array.T)) for array in arrays)
    depth, height, width = voxels.shape
    x, y, z = (float(value) for value in np.diag(template.affine)[:3])  # no rotation
    left, back, low = (float(value) for value in template.affine[:3, 3])
    direction = (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)
    grid = Grid((depth, height, width), (x, y, z), (-left, -back, low), direction)
    return Image(voxels, grid, "MNI152 template"), LabelMap(inside.long(), grid, "MNI152 brain mask")


def _grid_in_template(mri: Image, template_to_mri: Rigid) -> Grid:
    """Grid of 2 mm along the template's axes that holds the whole MRI."""
    corners = template_to_mri.inverse().apply(mri.grid.corners_mm())
    low, high = corners.amin(0), corners.amax(0)
    x, y, z = ((low + high) / 2).tolist()
    width, height, depth = ((high - low) / TEMPLATE_MM).ceil().long().add(1).tolist()
    return Grid.centered((x, y, z), (depth, height, width), (TEMPLATE_MM,) * 3)


def _record(pair: PreparedPair) -> dict[str, object]:
    return {
        "format": "crossalign prepared pair 1",
        "voxels": pair.mri.grid.shape[0],
        "spacing_mm": pair.mri.grid.spacing_mm[0],
        "inputs": {"mri": asdict(pair.mri_scaling), "pet": asdict(pair.pet_scaling)},
        "reasons": list(pair.reasons),
        "template": f"MNI152 T1 (nilearn), {'rigid' if pair.affine is None else 'affine'}",
    }
