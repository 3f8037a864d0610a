"""Smooth maps of space: random displacements, the shapes of structures, and the deformation between two scans."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from crossalign.simulation.random_fields import random_directions, signed_uniform, uniform
from crossalign.simulation.settings import DeformationSettings, Range

WAVES = 6
INVERSION_STEPS = 40  # of the fixed-point iteration that inverts a deformation


@runtime_checkable
class ShapeMap(Protocol):
    """Maps the patient to the frame in which an anatomy is made of ellipsoids; of structures (b)."""

    @property
    def half_axes_mm(self) -> Tensor:
        """Half axes (b, 3) of the structures."""

    def apply(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the patient, mm."""

    def radius(self, points_mm: Tensor) -> Tensor:
        """Return (b, n) below 1 inside the structure, at points (b, 3, n) of the frame of the ellipsoids."""


@dataclass(frozen=True, eq=False)
class PlaneWaves:
    """A smooth random displacement: the sum over plane waves of amplitude (b, w, 3) times cos(k . p + phase), mm."""

    frequency_per_mm: Tensor
    phase: Tensor
    amplitude_mm: Tensor

    def at(self, points_mm: Tensor) -> Tensor:
        """Displacement (b, n, 3) at points (b, n, 3), mm."""
        return torch.cos(points_mm @ self.frequency_per_mm.mT + self.phase[:, None]) @ self.amplitude_mm


def draw_plane_waves(count: int, rms_mm: Range, wavelength_mm: Range, generator: torch.Generator) -> PlaneWaves:
    """Draw waves whose displacement has this root mean square length."""
    direction = random_directions((count, WAVES), generator)
    frequency = direction * (2 * torch.pi / uniform(wavelength_mm, (count, WAVES, 1), generator))
    size = torch.randn(count, WAVES, 3, generator=generator)
    # cos has a mean square of 1/2, so the squared amplitudes must sum to twice the squared length.
    size = size / size.square().sum((1, 2), keepdim=True).sqrt() * 2**0.5 * uniform(rms_mm, (count, 1, 1), generator)
    return PlaneWaves(frequency, uniform((0, 2 * torch.pi), (count, WAVES), generator), size)


@dataclass(frozen=True, eq=False)
class SmoothShape:
    """A `ShapeMap` of any smooth structure: tapered and flattened along z, bent along y, displaced at random."""

    half_axes_mm: Tensor
    taper: Tensor
    bend_mm: Tensor
    flat: Tensor
    waves: PlaneWaves

    def apply(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3), mm."""
        x, y, z = points_mm.unbind(-1)
        hx, _, hz = self.half_axes_mm[:, :, None].unbind(1)
        narrower = 1 - self.taper[:, :, None] * torch.tanh(z / (1.2 * hz))[:, None]
        x_new, y = x * narrower[:, 0], y * narrower[:, 1]
        sideways = (x / hx).square()
        y_new = y + self.bend_mm[:, None] * (0.3 - sideways / (1 + 0.3 * sideways))
        # Slower in the middle, faster beyond it: one end is flat, the other blunt or pointed.
        height = z / hz
        flat = torch.where(height > 0, self.flat[:, :1], self.flat[:, 1:])
        z_new = z * (1 + flat / 2 - flat / (1 + height.square().square()))
        return torch.stack((x_new, y_new, z_new), dim=-1) + self.waves.at(points_mm)

    def radius(self, points_mm: Tensor) -> Tensor:
        """Return (b, n) below 1 inside the structure, at points (b, 3, n) of the frame of the ellipsoids."""
        return (points_mm / self.half_axes_mm[:, :, None]).square().sum(1)


def hollowed(sideways: Tensor, backwards: Tensor) -> Tensor:
    """Return how far a back is pushed in, over x / half width and y / half depth: 0 in front, horns at the sides."""
    square = sideways.square()
    return (0.3 - 0.9 * square) * torch.exp(-square / 2) * (0.5 + 0.5 * torch.tanh(2 * backwards))


@dataclass(frozen=True, eq=False)
class Deformation:
    """From the patient of the moving scan back to the patient of the fixed scan: p -> p + u(p), mm.

    A random displacement, a push from behind, a `stretch` (b, 3) along the axes, and the structure wrapped about an
    ultrasound probe by `wrap_mm`.
    """

    waves: PlaneWaves
    push_mm: Tensor
    push_center_mm: Tensor
    push_width_mm: Tensor
    stretch: Tensor
    wrap_mm: Tensor
    half_axes_mm: Tensor

    def displacement(self, points_mm: Tensor) -> Tensor:
        """Return u (b, n, 3) at points (b, n, 3) of the moving scan's patient, mm."""
        offset = (points_mm - self.push_center_mm[:, None]) / self.push_width_mm[:, None, None]
        push = self.push_mm[:, None] * torch.exp(-0.5 * offset.square().sum(-1))
        sideways, backwards, _ = (points_mm / self.half_axes_mm[:, None]).unbind(-1)
        back = torch.zeros_like(points_mm)
        back[..., 1] = push + self.wrap_mm[:, None] * hollowed(sideways, backwards)
        return back - self.stretch[:, None] * points_mm + self.waves.at(points_mm)

    def apply(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the moving scan's patient to the fixed scan's."""
        return points_mm + self.displacement(points_mm)

    def invert(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the fixed scan's patient to the moving scan's, to under 1e-3 mm."""
        found = points_mm
        for _ in range(INVERSION_STEPS):
            found = points_mm - self.displacement(found)
        return found


def draw_smooth_shape(half_axes_mm: Tensor, asymmetry_mm: Range, generator: torch.Generator) -> SmoothShape:
    """Draw the shapes of structures with these half axes (b, 3), mm."""
    count = len(half_axes_mm)
    waves = draw_plane_waves(count, asymmetry_mm, (32.0, 80.0), generator)
    taper = torch.stack([uniform(bounds, (count,), generator) for bounds in ((-0.1, 0.5), (-0.2, 0.4))], -1)
    bend = uniform((-1.0, 7.0), (count,), generator)
    flat = torch.stack([uniform(bounds, (count,), generator) for bounds in ((-0.1, 0.55), (-0.25, 0.3))], -1)
    return SmoothShape(half_axes_mm, taper, bend, flat, waves)


def draw_deformation(half_axes_mm: Tensor, settings: DeformationSettings, generator: torch.Generator) -> Deformation:
    """Draw what changes between the scans; all zero where the settings switch it off."""
    count = len(half_axes_mm)
    scale = 1.0 if settings.enabled else 0.0
    waves = draw_plane_waves(count, settings.wave_mm, settings.wavelength_mm, generator)
    waves = PlaneWaves(waves.frequency_per_mm, waves.phase, waves.amplitude_mm * scale)
    push = uniform(settings.push_mm, (count,), generator) * scale
    x, z = signed_uniform((0, 6), (count,), generator), signed_uniform((0, 10), (count,), generator)
    center = torch.stack((x, half_axes_mm[:, 1] + 4, z), dim=-1)
    width = uniform((18, 28), (count,), generator)
    ranges = (settings.stretch_x, settings.stretch_y, settings.stretch_z)
    stretch = torch.stack([uniform(bounds, (count,), generator) for bounds in ranges], -1) * scale
    wrap = torch.minimum(uniform(settings.wrap_mm, (count,), generator), 1.1 * half_axes_mm[:, 1]) * scale
    return Deformation(waves, push, center, width, stretch, wrap, half_axes_mm * (1 + stretch))
