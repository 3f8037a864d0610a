"""Seeded MRI-PET pairs of heads, exactly aligned: what each modality shows, and where the lesions are."""

from dataclasses import dataclass

import torch

from crossalign.fusion.simulation.anatomy import Head, HeadTemplate, random_number, smooth_field
from crossalign.fusion.simulation.settings import HeadSettings
from crossalign.simulation.random_fields import apply_separable, bernoulli, blur_matrices, normal, uniform
from crossalign.simulation.settings import Range
from crossalign.types import Shape, Volume

FWHM_PER_SIGMA = 2.3548

# grey, white, CSF, bone, scalp, fat
T1: tuple[Range, ...] = ((0.4, 0.65), (0.65, 0.95), (0.05, 0.3), (0.02, 0.12), (0.2, 0.6), (0.6, 1.4))
T2: tuple[Range, ...] = ((0.4, 0.7), (0.2, 0.5), (0.8, 1.1), (0.02, 0.1), (0.15, 0.5), (0.3, 0.9))
UPTAKE: tuple[Range, ...] = ((0.75, 1.1), (0.2, 0.55), (0.02, 0.15), (0.02, 0.15), (0.05, 0.4), (0.02, 0.2))


@dataclass(frozen=True, eq=False)
class HeadPair:
    """One head: MRI and PET (1, 1, z, y, x), from 0 upwards, in arbitrary units, and soft masks of the lesions.

    `hot`, `cold` and `hypometabolic` are in the PET alone, `mri_lesion` in the MRI alone; 0 where there is none.
    """

    mri: Volume
    pet: Volume
    brain: Volume
    hot: Volume
    cold: Volume
    hypometabolic: Volume
    mri_lesion: Volume
    spacing_mm: float


def simulate_head(
    template: HeadTemplate, shape: Shape, generator: torch.Generator, settings: HeadSettings | None = None
) -> HeadPair:
    """Draw one pair on a grid of this shape; the same generator state gives the same pair."""
    settings = settings or HeadSettings()
    head = template.draw(shape, settings, generator)
    grey_white = head.tissues[:, :2].sum(1, keepdim=True)
    hot = _lesions(head, settings.hot_lesions, (4.0, 12.0), generator)
    cold = _lesions(head, settings.cold_lesions, (4.0, 12.0), generator)
    hypometabolic = _lesions(head, settings.hypometabolic_regions, (10.0, 30.0), generator)
    mri_lesion = _lesions(head, settings.mri_lesions, (1.5, 6.0), generator) * grey_white
    mri = _mri(head, mri_lesion, settings, generator)
    pet = _pet(head, (hot, cold, hypometabolic), settings, generator)
    return HeadPair(mri, pet, head.brain, hot, cold, hypometabolic, mri_lesion, head.spacing_mm)


def _mri(head: Head, lesion: Volume, settings: HeadSettings, generator: torch.Generator) -> Volume:
    shape = _shape(head)
    inverted = bool(bernoulli(settings.inverted_fraction, (), generator))
    image = _tissue_intensities(head, T2 if inverted else T1, settings.mri_stripped_fraction, generator)
    # The template's own fine structure, which the tissue fractions do not have.
    detail = head.t1 - _blurred(head.t1, 6.0 / head.spacing_mm)
    image = image + detail * random_number((0.0, 1.0), generator) * (-1 if inverted else 1) * head.brain
    grain = _blurred(normal(image.shape, generator), random_number((0.4, 1.5), generator))
    grain = grain / grain.std() * random_number((0.0, 0.06), generator)
    image = image * (1 + grain) + lesion * random_number((0.15, 0.5), generator) * _sign(generator)
    image = image.clamp(min=0) * torch.exp(smooth_field(shape, 3, generator) * random_number((0.0, 0.12), generator))
    blur = uniform(settings.mri_blur_mm, (), generator) / FWHM_PER_SIGMA / head.spacing_mm
    if bool(bernoulli(settings.smooth_fraction, (), generator)):  # group averages and smoothed series
        blur = uniform((2.0, 8.0), (), generator) / FWHM_PER_SIGMA / head.spacing_mm
    image = _blurred(image, float(blur))
    if bool(bernoulli(0.2, (), generator)):
        image = image + _faint_background(shape, generator)
    return _with_rician_noise(image, settings.mri_noise, generator)


def _pet(
    head: Head, lesions: tuple[Volume, Volume, Volume], settings: HeadSettings, generator: torch.Generator
) -> Volume:
    """Render the PET with hot and cold lesions and hypometabolic regions."""
    shape, (hot, cold, hypometabolic) = _shape(head), lesions
    image = _tissue_intensities(head, UPTAKE, settings.pet_stripped_fraction, generator)
    image = image * torch.exp(smooth_field(shape, 5, generator) * random_number((0.0, 0.15), generator))
    image = image * (1 - hypometabolic * random_number((0.15, 0.6), generator))
    image = image * (1 - cold * random_number((0.5, 1.0), generator)) + hot * random_number((0.4, 1.5), generator)
    sigma = random_number(settings.pet_blur_mm, generator) / FWHM_PER_SIGMA / head.spacing_mm
    image = _blurred(image.clamp(min=0), sigma)
    # Reconstructed noise: of the counts' size (sd like the root of the mean), smooth over some voxels.
    noise = _blurred(normal(image.shape, generator), random_number((0.3, 1.0), generator) * sigma)
    amount = random_number(settings.pet_noise, generator) * random_number((0.0, 1.0), generator)
    image = (image + noise / noise.std() * (image * image.mean()).clamp(min=0).sqrt() * amount * 2).clamp(min=0)
    return image + _faint_background(shape, generator) if bool(bernoulli(0.5, (), generator)) else image


def _faint_background(shape: Shape, generator: torch.Generator) -> Volume:
    """Draw the smooth background that reconstruction and averaging leave."""
    patches = _blurred(normal((1, 1, *shape), generator), random_number((0.5, 4.0), generator))
    patches = (patches / patches.std() + random_number((0.0, 3.0), generator)).clamp(min=0)
    return patches * random_number((0.0, 0.01), generator)


def _tissue_intensities(
    head: Head, ranges: tuple[Range, ...], stripped_fraction: float, generator: torch.Generator
) -> Volume:
    values = torch.stack([uniform(bounds, (), generator) for bounds in ranges])
    if bool(bernoulli(stripped_fraction, (), generator)):
        values[3:] = 0
    return (head.tissues * values[:, None, None, None]).sum(1, keepdim=True)


def _with_rician_noise(image: Volume, noise: Range, generator: torch.Generator) -> Volume:
    sd = random_number(noise, generator) * random_number((0.0, 1.0), generator)
    real, imaginary = normal(image.shape, generator) * sd, normal(image.shape, generator) * sd
    noisy = ((image + real) ** 2 + imaginary**2).sqrt()
    if bool(bernoulli(0.5, (), generator)):  # published volumes often have their background set to 0
        noisy = noisy * (_blurred((image > 0.02).float(), 1.0) > 0.3)
    return noisy


def _lesions(head: Head, most: int, radius_mm: Range, generator: torch.Generator) -> Volume:
    """Draw up to `most` soft ellipsoids, centred in the brain: a mask from 0 to 1, empty at times."""
    mask = torch.zeros_like(head.t1)
    centers = (head.brain[0, 0] > 0.5).nonzero().float()
    count = int(torch.randint(0, most + 1, (), generator=generator))
    if not len(centers):
        return mask
    axes = torch.meshgrid(*(torch.arange(n).float() for n in _shape(head)), indexing="ij")
    voxels = torch.stack(axes, dim=-1)
    for _ in range(count):
        center = centers[int(torch.randint(0, len(centers), (), generator=generator))]
        radius = uniform(radius_mm, (3,), generator) / head.spacing_mm
        inside = 1 - ((voxels - center) / radius).norm(dim=-1)
        mask = torch.maximum(mask, (inside * float(radius.mean()) + 0.5).clamp(0, 1)[None, None])
    return mask


def _blurred(volume: Volume, sigma_voxel: float) -> Volume:
    if sigma_voxel < 0.1:
        return volume
    matrices = [blur_matrices(size, torch.tensor([sigma_voxel])) for size in volume.shape[2:]]
    return apply_separable(volume, *matrices)


def _sign(generator: torch.Generator) -> float:
    return 1.0 if bool(bernoulli(0.5, (), generator)) else -1.0


def _shape(head: Head) -> Shape:
    z, y, x = head.t1.shape[2:]
    return z, y, x
