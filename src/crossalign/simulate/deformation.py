"""Smooth maps of space: random waves, the gland's taper and bend, and what probe pressure does between the scans."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.simulate.draws import chance, signed, uniform
from crossalign.simulate.settings import DeformationSettings, Range

WAVES = 6
LEAST_MM = 0.1  # from a probe's axis, where directions end


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


@dataclass(frozen=True, eq=False)
class Probe:
    """A round probe along z that has pushed the tissue aside: radius (b,), 0 where none has, and axis (b, 2) as x, y.

    What is at a distance r from the axis now was at r^3 / (r^2 + radius^2 / 2) before: far away tissue moves as if it
    kept its area, and the map is smooth inside the probe too, where nothing is seen.
    """

    radius_mm: Tensor
    axis_mm: Tensor

    def close(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the patient with the probe to where they were before."""
        way = points_mm[..., :2] - self.axis_mm[:, None]
        square = way.square().sum(-1)
        half = self._half_square()
        return self._moved(points_mm, way, square / (square + half).clamp(min=LEAST_MM))

    def open(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the patient without the probe to where it pushes them (Newton's steps)."""
        way = points_mm[..., :2] - self.axis_mm[:, None]
        before = way.norm(dim=-1).clamp(min=LEAST_MM)
        half = self._half_square()
        now = before + half.sqrt()
        for _ in range(12):
            wrong = now.square() * (now - before) - before * half
            now = now - wrong / (now * (3 * now - 2 * before))
        return self._moved(points_mm, way, now / before)

    def _half_square(self) -> Tensor:
        return self.radius_mm[:, None].square() / 2

    def _moved(self, points_mm: Tensor, way_mm: Tensor, scale: Tensor) -> Tensor:
        return torch.cat((self.axis_mm[:, None] + way_mm * scale[..., None], points_mm[..., 2:]), dim=-1)


@dataclass(frozen=True, eq=False)
class Deformation:
    """From the deformed patient, as the probe sees it, back to the patient of the MR, mm.

    First the probe is taken out, then p -> p + u(p).
    """

    waves: Waves
    push_mm: Tensor
    push_center_mm: Tensor
    push_width_mm: Tensor
    squeeze: Tensor
    swelling: Tensor
    probe: Probe

    def displacement(self, points_mm: Tensor) -> Tensor:
        """Return u (b, n, 3) at points (b, n, 3) of the deformed patient without the probe, mm."""
        offset = (points_mm - self.push_center_mm[:, None]) / self.push_width_mm[:, None, None]
        push = self.push_mm[:, None] * torch.exp(-0.5 * offset.square().sum(-1))
        x, y, z = points_mm.unbind(-1)
        factor = self.squeeze[:, None]
        moved = torch.stack((-0.55 * factor * x, factor * y + push, -0.4 * factor * z), dim=-1)
        return moved - self.swelling[:, None, None] * points_mm + self.waves.at(points_mm)

    def apply(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the deformed patient to the patient of the MR."""
        points_mm = self.probe.close(points_mm)
        return points_mm + self.displacement(points_mm)

    def invert(self, points_mm: Tensor) -> Tensor:
        """Map points (b, n, 3) of the patient of the MR to the deformed one, to under 1e-3 mm (fixed-point steps)."""
        found = points_mm
        for _ in range(24):
            found = points_mm - self.displacement(found)
        return self.probe.open(found)


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
    squeeze = uniform(settings.squeeze, (count,), generator) * scale
    # One in four patients has the fuller bladder or the coil in the MR: then the MR gland is the squeezed one.
    squeeze = torch.where(chance(0.25, (count,), generator), -0.5 * squeeze, squeeze)
    swelling = uniform(settings.swelling, (count,), generator) * scale
    width = uniform((18, 28), (count,), generator)
    return Deformation(waves, push, center, width, squeeze, swelling, _draw_probe(half_axes_mm, settings, generator))


def _draw_probe(half_axes_mm: Tensor, settings: DeformationSettings, generator: torch.Generator) -> Probe:
    count = len(half_axes_mm)
    there = chance(settings.probe_share if settings.enabled else 0.0, (count,), generator)
    radius = uniform(settings.probe_mm, (count,), generator) * there
    behind = half_axes_mm[:, 1] + uniform(settings.probe_behind_mm, (count,), generator)
    return Probe(radius, torch.stack((signed((0, 2), (count,), generator), behind), dim=-1))
