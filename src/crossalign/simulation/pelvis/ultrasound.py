"""Ultrasound images of a pelvis from a probe in the rectum: made along its beams, then resampled to the grid."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.geometry import sample
from crossalign.simulation.ellipsoids import EllipsoidModel
from crossalign.simulation.pelvis.probe import SWEEP_MM, Sector
from crossalign.simulation.pelvis.tissues import ECHO, draw_tissues
from crossalign.simulation.random_fields import apply_separable, bernoulli, blur_matrices, normal, soft_box, uniform
from crossalign.simulation.settings import UltrasoundSettings
from crossalign.simulation.tissues import Tissues, render_tissues, texture
from crossalign.types import Shape

SHADOWING = {"pubis": 0.35, "calcification": 0.9}


@dataclass(frozen=True, eq=False)
class UltrasoundScan:
    """What was drawn for ultrasound scans (b); `shadow_per_mm` (b, ellipsoids outside + gland + those inside)."""

    tissues: Tissues
    shadow_per_mm: Tensor
    texture: Tensor
    speckle: Tensor
    reflection: Tensor
    attenuation_per_mm: Tensor
    lateral_shading: Tensor
    contact: Tensor
    flare: Tensor
    focus: Tensor
    height_gain: Tensor
    near_fade_mm: Tensor
    gain: Tensor
    gap: Tensor
    sweep: Tensor
    blur_mm: Tensor
    edge_mm: Tensor
    box_half_mm: Tensor
    box_center_mm: Tensor


def draw_ultrasound(
    anatomy: EllipsoidModel,
    sector: Sector,
    header_rotation: Tensor,
    settings: UltrasoundSettings,
    generator: torch.Generator,
) -> UltrasoundScan:
    """Draw the scans of probes placed so (b); wrong headers rotate the patient by `header_rotation` (b, 3, 3)."""
    n = len(sector.near_mm)
    randomised = bernoulli(settings.random_contrast_fraction, (n,), generator)
    tissues = draw_tissues(ECHO, anatomy, uniform((0.02, 0.1), (n,), generator), randomised, settings.zones, generator)
    names = (*anatomy.outer_names, "gland", *anatomy.inner_names)
    shadow = torch.tensor([SHADOWING.get(name, 0.0) for name in names]) * uniform((0.3, 1.0), (n, 1), generator)
    contact = torch.stack([uniform(r, (n,), generator) for r in ((-1, 1), (0.05, 0.3), (-0.6, 0.9))], -1)
    box_center_mm, box_half_mm = _draw_box(sector, header_rotation, settings, generator)
    gap = bernoulli(settings.gap_fraction, (n,), generator).float() * uniform((0.3, 1.0), (n,), generator)
    # The operator sets the gain by the picture: a bright patient gets less.
    brightness = 0.25 + (tissues.structure + tissues.background) / 2
    wide = settings.speckle[1] - settings.speckle[0]
    attenuation = uniform(settings.attenuation_per_mm, (n,), generator)
    rise, at, width = (uniform(r, (n,), generator) for r in (settings.focus, (-3.0, 7.0), (7.0, 16.0)))
    gain = uniform((0.95, 1.7), (n,), generator) * torch.exp(attenuation * uniform((0, 12), (n,), generator))
    return UltrasoundScan(
        tissues=tissues,
        shadow_per_mm=shadow if settings.shadows else torch.zeros_like(shadow),
        texture=uniform(settings.texture, (n,), generator),
        speckle=settings.speckle[0] + wide * torch.rand(n, generator=generator).square(),
        reflection=uniform(settings.reflection, (n,), generator),
        attenuation_per_mm=attenuation,
        lateral_shading=uniform(settings.lateral_shading, (n,), generator),
        contact=contact if settings.shadows else contact * torch.tensor([1.0, 1.0, 0.0]),
        flare=torch.stack((uniform((-1.5, 0.6), (n,), generator).clamp(min=0), uniform((3, 14), (n,), generator)), -1),
        focus=torch.stack((rise, sector.gap_mm + at, width), -1),
        height_gain=_draw_height_gain(n, settings, generator),
        near_fade_mm=sector.gap_mm * uniform(settings.near_fade, (n,), generator),
        gain=gain / brightness,
        gap=gap,
        sweep=torch.randn(n, 4, generator=generator) * uniform(settings.sweep, (n, 1), generator),
        blur_mm=uniform(settings.blur_mm, (n,), generator),
        edge_mm=uniform(settings.edge_mm, (n,), generator),
        box_half_mm=box_half_mm,
        box_center_mm=box_center_mm,
    )


def _draw_box(
    sector: Sector, header_rotation: Tensor, settings: UltrasoundSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw the centres and half widths (b, 3) of the imaged boxes, mm: before the probe, from just before its face."""
    n = len(sector.near_mm)
    sides = (settings.box_width_mm, settings.box_depth_mm, settings.box_length_mm)
    half = torch.stack([uniform(bounds, (n,), generator) for bounds in sides], -1) / 2
    side = uniform((-2.5, 3.5), (n,), generator)
    offset = torch.stack((side, -0.85 * sector.near_mm - half[:, 1], torch.zeros(n)), -1)
    center = sector.probe_to_moving.translation_mm + (header_rotation @ offset[..., None])[..., 0]
    half = (header_rotation.abs() @ half[..., None])[..., 0]
    return center, half if settings.crop else torch.full_like(half, 1e4)


def _draw_height_gain(count: int, settings: UltrasoundSettings, generator: torch.Generator) -> Tensor:
    """Draw (b, 2) from a copy of the generator: a part that is off by default leaves the other draws as they are."""
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return torch.stack([uniform(r, (count,), copy) for r in (settings.brighter_near, settings.darker_far)], -1)


def beam_shape(shape: Shape) -> Shape:
    """Choose the sampling points (phi, theta, r) of the beams for images of this shape: about as fine as they are."""
    return (3 * shape[0] // 4, 3 * min(shape[1:]) // 4, max(shape))


def render_beams(
    membership: Tensor, shape: Shape, sector: Sector, scan: UltrasoundScan, generator: torch.Generator
) -> Tensor:
    """Turn memberships before clamping (b, k, n) along the beams into echoes (b, 1, phi, theta, r)."""
    depths = shape[-1]
    step_mm = ((sector.far_mm - sector.near_mm) / (depths - 1))[:, None, None, None]
    tissue = render_tissues(membership, scan.tissues).view(-1, *shape)
    absorbed = torch.bmm(scan.shadow_per_mm[:, None], membership).view(-1, *shape).mul_(step_mm).cumsum_(-1)
    edge = torch.zeros_like(tissue)
    edge[..., 1:] = tissue.diff(dim=-1).abs_()
    echo = tissue.addcmul_(edge, scan.reflection[:, None, None, None].expand_as(edge))
    echo = (echo[:, None] * texture(shape, scan.texture, generator))[:, 0]
    speckle = normal(tuple(echo.shape), generator).mul_(scan.speckle[:, None, None, None]).add_(1).clamp_(min=0)
    echo = echo.mul_(speckle).mul_(torch.exp(-absorbed))
    return (echo * _gain(shape, sector, scan, generator) + _flare(depths, sector, scan))[:, None]


def _gain(shape: Shape, sector: Sector, scan: UltrasoundScan, generator: torch.Generator) -> Tensor:
    """Make the factor that depends on depth, beam and plane alone, (b, phi, theta, r)."""
    planes, beams, depths = shape
    device = scan.gain.device
    unit = torch.linspace(0, 1, depths, device=device)
    depth_mm = unit * (sector.far_mm - sector.near_mm)[:, None]
    rise, focus_mm, width_mm = scan.focus[:, :, None].unbind(1)
    along = 1 + rise * torch.exp(-((depth_mm - focus_mm) / width_mm).square())
    near_mm = scan.near_fade_mm[:, None].clamp(min=1e-3)
    along = along * (1 - torch.exp(-(depth_mm / near_mm).square()))
    along = along * scan.gain[:, None] / (1 + 0.6 * rise) * torch.exp(-scan.attenuation_per_mm[:, None] * depth_mm)
    theta = torch.linspace(-1, 1, beams, device=device)
    at, width, strength = scan.contact[:, :, None].unbind(1)
    across = torch.exp(-scan.lateral_shading[:, None] * theta.square())
    across = across * (1 - strength.clamp(min=0) * torch.exp(-0.5 * ((theta - at) / width).square()))
    missing = torch.rand(len(scan.gain), planes, generator=generator, device=device) < 0.06
    sweep = 1 - scan.gap[:, None] * missing
    phi = torch.linspace(-1, 1, planes, device=device)
    sweep = sweep * torch.exp(_cosines(phi, scan.sweep))
    height_gain = _height_gain(phi * SWEEP_MM, depth_mm, sector, scan)
    return (sweep[:, :, None] * height_gain)[:, :, None] * (across[:, :, None] * along[:, None, :])[:, None]


def _height_gain(up_mm: Tensor, depth_mm: Tensor, sector: Sector, scan: UltrasoundScan) -> Tensor:
    """Make the brightness above and below the gland, relative to that at its height, (b, phi, r).

    In real scans (docs/concepts/simulation.md) it is least, near the probe, a little below the gland's middle, and
    greatest there further away.
    """
    height = (up_mm - sector.gland_up_mm[:, None]) / sector.gland_half_mm[:, None] - 0.15
    away = 1 - torch.exp(-height.square())
    near, far = scan.height_gain[:, :, None].unbind(1)
    behind = depth_mm - sector.gap_mm[:, None]
    change = near * torch.exp(-((behind - 5) / 12).square()) - far * torch.sigmoid((behind - 22) / 4)
    return 1 + away[:, :, None] * change[:, None]


def _cosines(at: Tensor, weights: Tensor) -> Tensor:
    """Make smooth random curves (b, n) over positions from -1 to 1, weights (b, k) on the first cosines."""
    order = torch.arange(1, weights.shape[1] + 1, device=at.device)
    return weights @ torch.cos(order[:, None] * (torch.pi / 2) * (at + 1))


def _flare(depths: int, sector: Sector, scan: UltrasoundScan) -> Tensor:
    """Make the bright band of the probe's own ringing, (b, 1, 1, r)."""
    depth_mm = torch.linspace(0, 1, depths, device=scan.flare.device) * (sector.far_mm - sector.near_mm)[:, None]
    strength, reach_mm = scan.flare[:, :, None].unbind(1)
    return (strength * torch.exp(-depth_mm / reach_mm))[:, None, None]


def scan_convert(
    echoes: Tensor,
    points_mm: Tensor,
    spacing_mm: float,
    sector: Sector,
    scan: UltrasoundScan,
    settings: UltrasoundSettings,
) -> Tensor:
    """Resample echoes (b, 1, phi, theta, r) at grid points (b, z, y, x, 3): images (b, 1, z, y, x) in [0, 1].

    Exactly 0 outside the sector and the imaged box, with an edge that fades inside them.
    """
    shape = (points_mm.shape[1], points_mm.shape[2], points_mm.shape[3])
    unit, inside_mm = sector.moving_to_beam(points_mm.flatten(1, 3))
    last = torch.tensor(echoes.shape[:1:-1], device=echoes.device) - 1
    image = sample(echoes, ((unit.clamp_(-1, 1) + 1) * (last / 2)).view(points_mm.shape))
    image = apply_separable(image, *[blur_matrices(size, scan.blur_mm / spacing_mm) for size in shape]).clamp_(0, 1)
    if settings.sector:
        image *= (inside_mm / scan.edge_mm[:, None]).clamp_(0, 1).view_as(image)
    image *= soft_box(shape, spacing_mm, scan.box_center_mm, scan.box_half_mm, scan.edge_mm)
    return (image * 255).round_() / 255 if settings.quantised else image
