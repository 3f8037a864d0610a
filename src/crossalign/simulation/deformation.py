"""Smooth maps of space: random waves, bent bodies, and what the probe does to the gland between the scans."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.simulation.fields import signed, uniform
from crossalign.simulation.settings import DeformationSettings, Range

WAVES = 6
STEPS = 40


@dataclass(frozen=True, eq=False)
class Waves:
    """A smooth random displacement: the sum over plane waves of amplitude (b, w, 3) times cos(k . p + phase), mm."""

    frequency_per_mm: Tensor
    phase: Tensor
    amplitude_mm: Tensor

    def at(self, points_mm: Tensor) -> Tensor:
        """Displacement (b, n, 3) at points (b, n, 3), mm."""
        return torch.cos(points_mm @ self.frequency_per_mm.mT + self.phase[:, None]) @ self.amplitude_mm


def draw_waves(count: int, rms_mm: Range, wavelength_mm: Range, generator: torch.Generator) -> Waves:
    """Draw waves whose displacement has this root mean square length."""
    way = torch.nn.functional.normalize(torch.randn(count, WAVES, 3, generator=generator), dim=-1)
    frequency = way * (2 * torch.pi / uniform(wavelength_mm, (count, WAVES, 1), generator))
    size = torch.randn(count, WAVES, 3, generator=generator)
    # cos has a mean square of 1/2, so the squared amplitudes must sum to twice the squared length.
    size = size / size.square().sum((1, 2), keepdim=True).sqrt() * 2**0.5 * uniform(rms_mm, (count, 1, 1), generator)
    return Waves(frequency, uniform((0, 2 * torch.pi), (count, WAVES), generator), size)


@dataclass(frozen=True, eq=False)
class Shape:
    """From the patient (b, n, 3) to the frame in which the anatomy is made of ellipsoids: taper, bend, random waves."""

    half_axes_mm: Tensor
    taper: Tensor
    bend_mm: Tensor
    flat: Tensor
    waves: Waves

    def apply(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3), mm: narrower towards the apex, the back hollowed where the rectum lies."""
        x, y, z = points_mm.unbind(-1)
        hx, _, hz = self.half_axes_mm[:, :, None].unbind(1)
        narrower = 1 - self.taper[:, :, None] * torch.tanh(z / (1.2 * hz))[:, None]
        x_new, y = x * narrower[:, 0], y * narrower[:, 1]
        sideways = (x / hx).square()
        y_new = y + self.bend_mm[:, None] * (0.3 - sideways / (1 + 0.3 * sideways))
        # Below the middle slowed down and beyond it caught up: a flat base, a blunt or a pointed apex.
        height = z / hz
        flat = torch.where(height > 0, self.flat[:, :1], self.flat[:, 1:])
        z_new = z * (1 + flat / 2 - flat / (1 + height.square().square()))
        return torch.stack((x_new, y_new, z_new), dim=-1) + self.waves.at(points_mm)

    def radius(self, points_mm: Tensor) -> Tensor:
        """Return (b, n) below 1 inside the main body, at points (b, 3, n) of the frame of the ellipsoids."""
        return (points_mm / self.half_axes_mm[:, :, None]).square().sum(1)


def hollowed(sideways: Tensor, backwards: Tensor) -> Tensor:
    """Return how far a back is pushed in, over x / half width and y / half depth: 0 in front, horns at the sides."""
    square = sideways.square()
    return (0.3 - 0.9 * square) * torch.exp(-square / 2) * (0.5 + 0.5 * torch.tanh(2 * backwards))


@dataclass(frozen=True, eq=False)
class Deformation:
    """From the deformed patient, as the probe sees it, back to the patient of the MR: p -> p + u(p), mm.

    Waves, a push from behind, a `stretch` (b, 3) along the axes, and the gland wrapped about the probe by `wrap_mm`.
    """

    waves: Waves
    push_mm: Tensor
    push_center_mm: Tensor
    push_width_mm: Tensor
    stretch: Tensor
    wrap_mm: Tensor
    half_axes_mm: Tensor

    def displacement(self, points_mm: Tensor) -> Tensor:
        """Return u (b, n, 3) at points (b, n, 3) of the deformed patient, mm."""
        offset = (points_mm - self.push_center_mm[:, None]) / self.push_width_mm[:, None, None]
        push = self.push_mm[:, None] * torch.exp(-0.5 * offset.square().sum(-1))
        sideways, backwards, _ = (points_mm / self.half_axes_mm[:, None]).unbind(-1)
        back = torch.zeros_like(points_mm)
        back[..., 1] = push + self.wrap_mm[:, None] * hollowed(sideways, backwards)
        return back - self.stretch[:, None] * points_mm + self.waves.at(points_mm)

    def apply(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the deformed patient to the patient of the MR."""
        return points_mm + self.displacement(points_mm)

    def invert(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the patient of the MR to the deformed one, to under 1e-3 mm (fixed-point steps)."""
        found = points_mm
        for _ in range(STEPS):
            found = points_mm - self.displacement(found)
        return found


def draw_shape(half_axes_mm: Tensor, asymmetry_mm: Range, generator: torch.Generator) -> Shape:
    """Draw the shape of each gland (b, 3)."""
    count = len(half_axes_mm)
    waves = draw_waves(count, asymmetry_mm, (32.0, 80.0), generator)
    taper = torch.stack([uniform(bounds, (count,), generator) for bounds in ((-0.1, 0.5), (-0.2, 0.4))], -1)
    bend = uniform((-1.0, 7.0), (count,), generator)
    flat = torch.stack([uniform(bounds, (count,), generator) for bounds in ((-0.1, 0.55), (-0.25, 0.3))], -1)
    return Shape(half_axes_mm, taper, bend, flat, waves)


def draw_deformation(half_axes_mm: Tensor, settings: DeformationSettings, generator: torch.Generator) -> Deformation:
    """Draw what changes between the scans; all zero where the settings switch it off."""
    count = len(half_axes_mm)
    scale = 1.0 if settings.enabled else 0.0
    waves = draw_waves(count, settings.wave_mm, settings.wavelength_mm, generator)
    waves = Waves(waves.frequency_per_mm, waves.phase, waves.amplitude_mm * scale)
    push = uniform(settings.push_mm, (count,), generator) * scale
    x, z = signed((0, 6), (count,), generator), signed((0, 10), (count,), generator)
    center = torch.stack((x, half_axes_mm[:, 1] + 4, z), dim=-1)
    width = uniform((18, 28), (count,), generator)
    ranges = (settings.stretch_x, settings.stretch_y, settings.stretch_z)
    stretch = torch.stack([uniform(bounds, (count,), generator) for bounds in ranges], -1) * scale
    wrap = torch.minimum(uniform(settings.wrap_mm, (count,), generator), 1.1 * half_axes_mm[:, 1]) * scale
    return Deformation(waves, push, center, width, stretch, wrap, half_axes_mm * (1 + stretch))
