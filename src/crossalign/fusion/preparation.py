"""The published input: the head in the middle of a cube of 128 voxels a side."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from crossalign.errors import ImageError, OutputError
from crossalign.fusion.alignment import Affine, align, refine_affine, resampled_affine, write_affine
from crossalign.fusion.scaling import Scaling, find_scaling, find_uptake_scaling
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, write_image, write_transform
from crossalign.output import reason, whole_file, write_text
from crossalign.registration import RegistrationResult
from crossalign.registration.result import VERDICT
from crossalign.types import Vector

CANVAS_VOXELS = 128
CANVAS_MM = 224.0  # the paper pads to 224 voxels of the 1 mm template
FOREGROUND = 0.05
STRAY_SHARE = 0.001
SMALLEST_HEAD_MM = 60.0  # the paper's cube is for human heads; about anything smaller it is as much larger than that
ROOM = 1.25


def canvas_grid(mri: Image, voxels: int = CANVAS_VOXELS, least_mm: float = CANVAS_MM) -> Grid:
    """Choose the cube about the MRI's foreground: `voxels` a side, axes along L, P and S, its voxels cubes too.

    The side is `least_mm` (the paper's), or the foreground's longest side where that is more; a foreground shorter than
    60 mm, no human head, gets a cube a quarter longer than itself. Raises ImageError for an MRI without foreground.
    """
    low, high = foreground_box_mm(mri)
    longest = float((high - low).max())
    side = max(least_mm, longest) if longest >= SMALLEST_HEAD_MM else ROOM * longest
    x, y, z = ((low + high) / 2).tolist()
    return Grid.centered((x, y, z), (voxels,) * 3, (side / voxels,) * 3)


def foreground_box_mm(mri: Image) -> tuple[Vector, Vector]:
    """Return the corners, low and high (3,), LPS mm, of the box about what is brighter than 5 % of the scale.

    Means of 3^3 voxels are looked at, and a thousandth of them may stick out on each side: noise in the air must not
    decide. Raises ImageError where there is nothing so bright.
    """
    scaled = find_scaling(mri).applied(mri.voxels)
    means = F.avg_pool3d(scaled[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    bright = (means > FOREGROUND).nonzero().flip(-1)
    if len(bright) < 2:
        raise ImageError(f"{mri.name}: nothing in it is brighter than 5 % of its scale: is this an MRI?")
    points = mri.grid.to_physical(bright.double()).sort(dim=0).values
    stray = int(len(points) * STRAY_SHARE)
    return points[stray], points[len(points) - 1 - stray]


def on_canvas(mri: Image, pet: Image, voxels: int = CANVAS_VOXELS) -> tuple[Image, Image]:
    """Bring both onto `canvas_grid` (trilinear, as published); padding, and what lies beyond an image, show nothing."""
    grid, no_uptake = canvas_grid(mri, voxels), find_uptake_scaling(pet)
    structure = find_scaling(mri).emptied(mri)
    darkest = float(structure.voxels.min())
    return structure.resampled(grid, fill=darkest), no_uptake.emptied(pet).resampled(grid, fill=no_uptake.low)


SMALLEST_HEAD_MM, LARGEST_HEAD_MM = 70.0, 600.0  # the longest side of what an MRI shows: a newborn's; neck and chest


@dataclass(frozen=True, eq=False)
class Prepared:
    """A pair on one cube in MNI space, in [0, 1], and everything that was done to it.

    `mri_to_pet` maps MRI points to PET points, `template_to_mri` points of the template to MRI points (LPS, mm), and so
    does `stretched`: the affine transform that both were resampled through, None where the rigid one was.
    """

    mri: Image
    pet: Image
    mri_scaling: Scaling
    pet_scaling: Scaling
    mri_to_pet: RegistrationResult
    template_to_mri: RegistrationResult
    stretched: Affine | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What both registrations had to say; the reasons not to trust one of them come first."""
        reasons = tuple(f"{VERDICT}: {text}" for text in self.reasons)
        return (*reasons, *self.mri_to_pet.warnings, *self.template_to_mri.warnings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why one of the registrations is not to be trusted."""
        named = (("PET to MRI", self.mri_to_pet), ("MRI to template", self.template_to_mri))
        return tuple(f"{name}: {text}" for name, result in named for text in result.reasons)


def prepare_pair(mri: Image, pet: Image, voxels: int = CANVAS_VOXELS, affine: bool = False) -> Prepared:
    """Register PET to MRI and the MRI to the MNI152 template, resample both once, crop to the head, and scale.

    Both registrations are rigid (mutual information): the anatomy keeps its size. With `affine` the MRI's is then
    refined to an affine one, and the head takes the template's size. Axes become L, P and S. The cube of `voxels` a
    side is 224 mm long, or as long as the head where that is more. Raises ImageError for an MRI that shows no human
    head, by its size, and what `register` and `refine_affine` raise.
    """
    _check_head(mri)
    mri, pet = find_scaling(mri).emptied(mri), find_uptake_scaling(pet).emptied(pet)
    mri_to_pet = align(mri, pet)
    template, brain = mni_template()
    template_to_mri = align(template, mri, brain)
    rigid = template_to_mri.fixed_to_moving
    stretched = refine_affine(template, mri, rigid, brain) if affine else None
    to_mri = stretched or Affine.of(rigid)
    in_template = resampled_affine(mri, _template_space(mri, rigid), to_mri)
    grid = canvas_grid(in_template, voxels)
    moved_mri = resampled_affine(mri, grid, to_mri)
    moved_pet = resampled_affine(pet, grid, Affine.of(mri_to_pet.fixed_to_moving).after(to_mri))
    mri_scaling, pet_scaling = find_scaling(moved_mri), find_uptake_scaling(moved_pet)
    return Prepared(
        mri=Image(mri_scaling.applied(moved_mri.voxels), grid, "mri"),
        pet=Image(pet_scaling.applied(moved_pet.voxels), grid, "pet"),
        mri_scaling=mri_scaling,
        pet_scaling=pet_scaling,
        mri_to_pet=mri_to_pet,
        template_to_mri=template_to_mri,
        stretched=stretched,
    )


def _check_head(mri: Image) -> None:
    low, high = foreground_box_mm(mri)
    longest = float((high - low).max())
    if not SMALLEST_HEAD_MM <= longest <= LARGEST_HEAD_MM:
        raise ImageError(
            f"{mri.name}: what it shows is {longest:.3g} mm long, expected a human head "
            f"({SMALLEST_HEAD_MM:g} to {LARGEST_HEAD_MM:g} mm): the preparation brings it to a template of one. "
            "Check the spacing in its header, or fuse the pair as it is (crossalign fuse --register)"
        )


def write_prepared(prepared: Prepared, folder: Path) -> None:
    """Write a folder: both images, both transforms and `prepared.json`; whole, or not at all. Raises OutputError."""
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {reason(error)}") from error
    try:
        write_image(prepared.mri, folder / "mri.nii.gz")
        write_image(prepared.pet, folder / "pet.nii.gz")
        write_transform(prepared.mri_to_pet.fixed_to_moving, folder / "mri_to_pet.tfm")
        write_affine(
            prepared.stretched or Affine.of(prepared.template_to_mri.fixed_to_moving), folder / "mni_to_mri.tfm"
        )
        with whole_file(folder / "prepared.json") as partial:
            write_text(json.dumps(_record(prepared), indent=2) + "\n", partial)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # ours: it did not exist before
        raise


def mni_template() -> tuple[Image, LabelMap]:
    """Return nilearn's MNI152 T1 template (skull-stripped, 2 mm) and its brain mask, LPS."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    template, mask = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    voxels = np.asarray(template.get_fdata(), dtype=np.float32)
    inside = np.asarray(mask.get_fdata()) > 0
    grid = _lps_grid(np.asarray(template.affine), voxels.shape)
    # nibabel has x first and RAS; here z is first and x runs to the left.
    as_here = [torch.from_numpy(np.ascontiguousarray(array.T)) for array in (voxels, inside)]
    return Image(as_here[0], grid, "MNI152 template"), LabelMap(as_here[1].long(), grid, "MNI152 brain mask")


def _lps_grid(affine: np.ndarray, shape: tuple[int, ...]) -> Grid:
    """Grid of an image whose affine (RAS) has no rotation: diagonal, positive."""
    width, height, depth = shape
    x, y, z = (float(affine[axis, axis]) for axis in range(3))
    origin = (-float(affine[0, 3]), -float(affine[1, 3]), float(affine[2, 3]))
    return Grid((depth, height, width), (x, y, z), origin, ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)))


def _template_space(mri: Image, template_to_mri: Rigid) -> Grid:
    """Grid of 2 mm, axes along the template's, that holds the whole MRI."""
    corners = template_to_mri.inverse().apply(mri.grid.corners_mm())
    low, high = corners.amin(0), corners.amax(0)
    x, y, z = ((low + high) / 2).tolist()
    width, height, depth = ((high - low) / 2.0).ceil().long().add(1).tolist()
    return Grid.centered((x, y, z), (depth, height, width), (2.0, 2.0, 2.0))


def _record(prepared: Prepared) -> dict[str, object]:
    def scaling(one: Scaling) -> dict[str, float]:
        return {"low": one.low, "high": one.high, "clipped_share": one.clipped_share}

    return {
        "format": "crossalign prepared pair 1",
        "voxels": prepared.mri.grid.shape[0],
        "spacing_mm": prepared.mri.grid.spacing_mm[0],
        "inputs": {"mri": scaling(prepared.mri_scaling), "pet": scaling(prepared.pet_scaling)},
        "doubts": list(prepared.reasons),
        "template": f"MNI152 T1 (nilearn), {'rigid' if prepared.stretched is None else 'affine'}",
    }
