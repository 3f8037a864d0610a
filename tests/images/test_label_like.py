"""Telling label maps from scans: right on both, so that the warning means something."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from crossalign.images import looks_like_labels, read_volume

GENERATOR = torch.Generator().manual_seed(3)


def blobs(values: list[int], size: int = 32) -> torch.Tensor:
    """Label map of smooth parcels, about a background of 0."""
    noise = F.interpolate(torch.randn(len(values) + 1, 1, 5, 5, 5, generator=GENERATOR), size=(size,) * 3)[:, 0]
    smooth = F.avg_pool3d(noise[:, None], 5, stride=1, padding=2)[:, 0]
    return torch.tensor([0, *values])[smooth.argmax(0)].float()


def eight_bit_scan(noise: float, size: int = 32) -> torch.Tensor:
    body = F.interpolate(torch.randn(1, 1, 4, 4, 4, generator=GENERATOR), size=(size,) * 3, mode="trilinear")[0, 0]
    dirty = 120 + 50 * body + noise * torch.randn(size, size, size, generator=GENERATOR)
    return dirty.clamp(0, 255).round()


@pytest.mark.parametrize(
    "values",
    [[1], [255], [1, 2, 3], [1001, 2035], list(range(1, 11)), [17, 18, 53, 54, *range(1001, 1036), *range(2001, 2036)]],
    ids=["one", "255", "tissues", "two far", "ten", "atlas"],
)
def test_segmentations_look_like_labels(values: list[int]) -> None:
    labels = blobs(values)
    assert looks_like_labels(labels)
    assert looks_like_labels(torch.where(labels == 0, torch.nan, labels))
    assert not looks_like_labels(labels + 0.25)


@pytest.mark.parametrize("noise", [0.0, 1.0, 8.0])
def test_integer_scans_do_not(noise: float) -> None:
    scan = eight_bit_scan(noise)
    assert not looks_like_labels(scan)
    padded = scan.clone()
    padded[:, :6], padded[:, :, 24:] = 0, 255  # both air and padding in plateaus
    assert not looks_like_labels(padded)


def test_constant_images_do_not() -> None:
    assert not looks_like_labels(torch.zeros(4, 5, 6))
    assert not looks_like_labels(torch.full((4, 5, 6), 3.0))


def test_real_scans_do_not_and_real_masks_do(shared_data: Path) -> None:
    cases = [*sorted((shared_data / "mrus").glob("obs*"))[:5], *sorted((shared_data / "mrus_open").glob("open*"))[:3]]
    for case in cases:
        for scan in ("mr.nii.gz", "us.nii.gz"):
            assert not looks_like_labels(read_volume(case / scan).voxels), case / scan
            mask = case / scan.replace(".nii.gz", "_gland.nii.gz")
            assert looks_like_labels(read_volume(mask).voxels), mask
