"""Colours of pictures and pages: a perceptual ramp, and MRI as lightness with PET as colour."""

from functools import lru_cache

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

COLOUR_MAP = "inferno"
LEVELS = 64
DARKEST, LIGHTEST = 4.0, 96.0
ONSET = 0.1  # fraction of the PET's range over which colour fades in: where there is no uptake the picture is grey
SEARCH_STEPS = 12

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)  # D65

Colours = NDArray[np.float64]


def colour_ramp() -> NDArray[np.uint8]:
    """Return the colours of one volume, (256, 3), dark first."""
    return np.rint(mpl.colormaps[COLOUR_MAP](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)


@lru_cache(maxsize=1)
def colour_table() -> NDArray[np.uint8]:
    """Return the sRGB colour (0 to 255) of each pair of levels, (MRI 64, PET 64, 3).

    Lightness (CIELAB) is the MRI's alone, so that anatomy reads as in a grey picture; hue is that of matplotlib's
    perceptual map at the PET's level, as saturated as a screen can display at that lightness.
    """
    level = np.linspace(0, 1, LEVELS)
    of_map = srgb_to_lab(mpl.colormaps[COLOUR_MAP](level)[:, :3])
    fade = np.clip(level / ONSET, 0, 1)
    target = np.zeros((LEVELS, LEVELS, 3))
    target[..., 0] = (DARKEST + (LIGHTEST - DARKEST) * level)[:, None]
    target[..., 1:] = (of_map[:, 1:] * fade[:, None])[None]
    target[..., 1:] *= _displayable_saturation(target)[..., None]
    return np.rint(np.clip(lab_to_srgb(target), 0, 1) * 255).astype(np.uint8)


def colour_fusion(mri: NDArray[np.float32], pet: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a plane: both in [0, 1], of one shape; returns sRGB with a last axis of 3."""
    rows, columns = (np.rint(np.clip(part, 0, 1) * (LEVELS - 1)).astype(int) for part in (mri, pet))
    return colour_table()[rows, columns]


def srgb_to_lab(colours: Colours) -> Colours:
    """Convert sRGB in [0, 1] (..., 3) to CIELAB (D65)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    t = linear @ TO_XYZ.T / WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def lab_to_srgb(lab: Colours) -> Colours:
    """Convert CIELAB (D65) (..., 3) to sRGB; colours that no screen can display lie outside [0, 1]."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * WHITE
    linear = xyz @ np.linalg.inv(TO_XYZ).T
    bright = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, bright)


def _displayable_saturation(lab: Colours) -> Colours:
    """Return the largest fraction of each colour's a and b that a screen can display at its lightness, by bisection."""
    low, high = np.zeros(lab.shape[:-1]), np.ones(lab.shape[:-1])
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        rgb = lab_to_srgb(np.concatenate([lab[..., :1], lab[..., 1:] * middle[..., None]], axis=-1))
        inside = ((rgb >= 0) & (rgb <= 1)).all(axis=-1)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low
