"""Bringing a PET to an MRI: wherever the origin lies, whatever its size, and with doubts where there are any."""

from dataclasses import replace

import pytest
import torch
from tests.fusion.phantom import pair

from crossalign.errors import ImageError
from crossalign.fusion import alignment as fusion_alignment
from crossalign.fusion.alignment import align, shared_information_bits
from crossalign.fusion.preparation import prepare_pair
from crossalign.geometry import Grid, Rigid, euler_to_rotation, mean_displacement_mm
from crossalign.images import Image
from crossalign.registration import RegistrationResult, register

VOXEL_MM = 2.0
EXTENT_MM = 76.0


def _rigid(angles_rad: tuple[float, ...], shift_mm: tuple[float, ...]) -> Rigid:
    turn = euler_to_rotation(torch.tensor(angles_rad, dtype=torch.float64))
    return Rigid(turn, torch.tensor(shift_mm, dtype=torch.float64))


MOTION = _rigid((0.05, -0.04, 0.08), (6.0, -4.0, 3.0))
WORLD = _rigid((0.5, -0.3, 1.0), (700.0, -600.0, 400.0))


def _moved(image: Image, motion: Rigid) -> Image:
    """Return the same voxels where the motion brings them: only the header changes."""
    grid = image.grid
    a, b, c = (motion.rotation @ torch.tensor(grid.direction, dtype=torch.float64)).tolist()
    x, y, z = motion.apply(torch.tensor([grid.origin_mm], dtype=torch.float64))[0].tolist()
    return Image(image.voxels, Grid(grid.shape, grid.spacing_mm, (x, y, z), (tuple(a), tuple(b), tuple(c))), image.name)


def _scaled(image: Image, factor: float) -> Image:
    (x, y, z), (left, back, low) = image.grid.spacing_mm, image.grid.origin_mm
    spacing, origin = (x * factor, y * factor, z * factor), (left * factor, back * factor, low * factor)
    return Image(image.voxels, Grid(image.grid.shape, spacing, origin, image.grid.direction), image.name)


def test_a_common_motion_of_both_worlds_changes_the_answer_by_itself() -> None:
    mri, pet = pair()
    pet = _moved(pet, MOTION)
    near = align(mri, pet).fixed_to_moving
    far = align(_moved(mri, WORLD), _moved(pet, WORLD)).fixed_to_moving
    points = mri.grid.corners_mm()
    assert float(mean_displacement_mm(near, MOTION, points)) < VOXEL_MM / 2
    assert float(mean_displacement_mm(WORLD.inverse() @ far @ WORLD, near, points)) < VOXEL_MM / 4


@pytest.mark.parametrize("factor", [0.25, 10.0], ids=["a mouse", "a phantom of a metre"])
def test_no_size_is_asked_for(factor: float) -> None:
    mri, pet = pair()
    found = align(_scaled(mri, factor), _scaled(_moved(pet, MOTION), factor)).fixed_to_moving
    truth = Rigid(MOTION.rotation, MOTION.translation_mm * factor)
    assert float(mean_displacement_mm(found, truth, mri.grid.corners_mm() * factor)) < VOXEL_MM / 2 * factor


@pytest.mark.parametrize("factor", [0.01, 1.0, 13.0])
def test_shared_information_is_of_no_unit_and_no_world(factor: float) -> None:
    mri, pet = pair()
    expected = shared_information_bits(mri, pet, Rigid.identity(), EXTENT_MM)
    bits = shared_information_bits(_scaled(mri, factor), _scaled(pet, factor), Rigid.identity(), EXTENT_MM * factor)
    assert bits == pytest.approx(expected, abs=0.01)
    turned = shared_information_bits(_moved(mri, WORLD), _moved(pet, WORLD), Rigid.identity(), EXTENT_MM)
    assert turned == pytest.approx(expected, abs=0.01)


def _answering(results: list[Rigid]) -> object:
    """Register as it is done, but answer with these in turn."""
    left = iter(results)

    def answer(*given: object) -> RegistrationResult:
        found = register(*given)  # type: ignore[arg-type]
        return replace(found, fixed_to_moving=next(left))

    return answer


def test_two_starts_that_end_apart_and_share_as_much_are_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    mri, pet = pair()
    pet = _moved(pet, _rigid((0.0, 0.0, 0.0), (6.0, 0.0, 0.0)))  # the header's start is not the middles'
    ends = [Rigid.identity(), _rigid((0.0, 0.0, 0.0), (40.0, 0.0, 0.0))]
    monkeypatch.setattr(fusion_alignment, "register", _answering(ends))
    monkeypatch.setattr(fusion_alignment, "shared_information_bits", lambda *_: 1.0)
    result = align(mri, pet)
    assert result.trusted is False
    assert (
        "the starts from the middle of the grids and from the headers end 40 mm apart" in result.expectation.reasons[-1]
    )
    bits = iter([1.0, 0.5])
    monkeypatch.setattr(fusion_alignment, "register", _answering(ends))
    monkeypatch.setattr(fusion_alignment, "shared_information_bits", lambda *_: next(bits))
    assert not any("mm apart: look" in doubt for doubt in align(mri, pet).expectation.reasons)


def test_what_is_no_human_head_is_refused_by_name() -> None:
    mri, pet = (_scaled(image, 0.1) for image in pair())
    with pytest.raises(ImageError, match=r"mri\.nii\.gz: what it shows is 8\.\d+ mm long, expected a human head"):
        prepare_pair(mri, pet, voxels=32)
