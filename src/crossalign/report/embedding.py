"""Volumes within a page that NiiVue reads: each on its own grid, as a gzipped NIfTI file in base64."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray

from crossalign.errors import InputError
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap
from crossalign.types import Scan

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
INTEGERS = (np.uint8, np.int16)  # those that NiiVue draws without a conversion
SAMPLES = 2_000_000  # voxels at most from which a window is chosen
LOW, HIGH = 0.005, 0.995  # quantiles of what is not background
COMPRESSION = 6
LEVELS = 255  # of one byte, from 0

Affine = list[list[float]]


@dataclass(frozen=True)
class EmbeddedVolume:
    """A volume of a page: the file, its window at first, and the least and largest value that a window can have."""

    nifti: str
    low: float
    high: float
    least: float
    largest: float


def embed(image: Image, to_fixed: Rigid | None = None, window: tuple[float, float] | None = None) -> EmbeddedVolume:
    """Embed a scan with its values, on its grid; `to_fixed` (LPS, mm) places it in the fixed image's space."""
    least, largest = (float(value) for value in torch.aminmax(image.voxels))
    low, high = value_window(image.voxels) if window is None else window
    return EmbeddedVolume(
        nifti_text(image.voxels.cpu().numpy(), ras_affine(image.grid, to_fixed)),
        low,
        high,
        min(least, low),
        max(largest, high),
    )


def embed_mask(mask: LabelMap, to_fixed: Rigid | None = None) -> str:
    """Embed a mask as 0 and 1."""
    return nifti_text((mask.labels.cpu().numpy() != 0).astype(np.uint8), ras_affine(mask.grid, to_fixed))


def embed_levels(
    scaled: Image, ends: tuple[float, float], window: tuple[float, float], to_fixed: Rigid | None = None
) -> EmbeddedVolume:
    """Embed values of 0 to 1 in 256 levels, which are read as the values from one of `ends` to the other."""
    low, high = ends
    levels = (scaled.voxels.clamp(0, 1) * LEVELS).round().to(torch.uint8).cpu().numpy()
    text = nifti_text(levels, ras_affine(scaled.grid, to_fixed), ((high - low) / LEVELS, low))
    return EmbeddedVolume(text, *window, low, high)


def ras_affine(grid: Grid, to_fixed: Rigid | None = None) -> Float64[np.ndarray, "4 4"]:
    """Return the matrix from voxel (x, y, z) to points of the fixed image in NIfTI's RAS, mm."""
    matrix = grid.voxel_to_physical()
    if to_fixed is not None:
        matrix = to_fixed.matrix().cpu().double() @ matrix
    affine: NDArray[np.float64] = LPS_TO_RAS @ matrix.numpy()
    return affine


def nifti_text(
    values: NDArray[np.generic], affine: NDArray[np.float64], slope_intercept: tuple[float, float] | None = None
) -> str:
    """Write an array (z, y, x) as NIfTI, gzip and base64, in the smallest type that holds its values exactly.

    They are read as value * slope + intercept, where these are given.
    """
    image = nib.nifti1.Nifti1Image(np.ascontiguousarray(smallest(values).T), affine)
    if slope_intercept is not None:
        image.header.set_slope_inter(*slope_intercept)
    image.header.set_xyzt_units("mm")
    content = gzip.compress(image.to_bytes(), compresslevel=COMPRESSION, mtime=0)
    return base64.b64encode(content).decode()


def smallest(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the values as unsigned bytes or short integers where these hold them exactly, else as float32."""
    low, high = values.min(), values.max()
    for kind in INTEGERS:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            integers = values.astype(kind)
            if np.array_equal(integers, values):
                return integers
    return values.astype(np.float32)


def value_window(voxels: Scan) -> tuple[float, float]:
    """Choose the darkest and the brightest value: all but 1 % of what is above the background, the least value."""
    values = voxels.flatten()
    values = values[:: max(1, len(values) // SAMPLES)]
    values = values[values > values.min()].sort().values
    if len(values) < 2 or bool(values[0] == values[-1]):
        least = float(voxels.min())
        return least, max(float(voxels.max()), least + 1.0)
    last = len(values) - 1
    return float(values[int(LOW * last)]), float(values[int(HIGH * last)])


@lru_cache(maxsize=1)
def niivue_script() -> str:
    """Return NiiVue's bundle. Raises InputError where the installation's copy is not the pinned one."""
    pinned = json.loads(_niivue_folder().joinpath("niivue.json").read_text(encoding="utf-8"))
    bundle = gzip.decompress(_niivue_folder().joinpath("niivue.umd.js.gz").read_bytes())
    if hashlib.sha256(bundle).hexdigest() != pinned["sha256"]:
        raise InputError("the viewer (NiiVue) in this installation is damaged: install crossalign again")
    return bundle.decode("utf-8")


@lru_cache(maxsize=1)
def niivue_packed() -> str:
    """Return NiiVue's bundle as gzip in base64: 1.1 MB of each page, where it would take 2.3 MB as it is."""
    niivue_script()  # is the pinned one
    return base64.b64encode(_niivue_folder().joinpath("niivue.umd.js.gz").read_bytes()).decode()


def _niivue_folder() -> Traversable:
    return files("crossalign.report").joinpath("niivue")


@lru_cache(maxsize=1)
def niivue_notice() -> str:
    """Return NiiVue's name, version and licence, which each copy must carry."""
    folder = _niivue_folder()
    pinned = json.loads(folder.joinpath("niivue.json").read_text(encoding="utf-8"))
    return f"NiiVue {pinned['version']}\n\n{folder.joinpath('LICENSE.txt').read_text(encoding='utf-8')}"
