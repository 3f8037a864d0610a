"""Rigid alignment of a PET to an MRI: at any origin and size, and with reasons where it is not to be trusted."""

from dataclasses import replace

import pytest
import torch
from tests.fusion.phantom import brainweb, pair

from crossalign.errors import ImageError
from crossalign.fusion import alignment
from crossalign.fusion.alignment import align, grid_mutual_information_bits
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
    """Apply a motion to the header alone."""
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
def test_any_size_is_aligned(factor: float) -> None:
    mri, pet = pair()
    found = align(_scaled(mri, factor), _scaled(_moved(pet, MOTION), factor)).fixed_to_moving
    truth = Rigid(MOTION.rotation, MOTION.translation_mm * factor)
    assert float(mean_displacement_mm(found, truth, mri.grid.corners_mm() * factor)) < VOXEL_MM / 2 * factor


@pytest.mark.parametrize("factor", [0.01, 1.0, 13.0])
def test_mutual_information_does_not_depend_on_unit_and_world(factor: float) -> None:
    mri, pet = pair()
    expected = grid_mutual_information_bits(mri, pet, Rigid.identity(), EXTENT_MM)
    bits = grid_mutual_information_bits(
        _scaled(mri, factor), _scaled(pet, factor), Rigid.identity(), EXTENT_MM * factor
    )
    assert bits == pytest.approx(expected, abs=0.01)
    turned = grid_mutual_information_bits(_moved(mri, WORLD), _moved(pet, WORLD), Rigid.identity(), EXTENT_MM)
    assert turned == pytest.approx(expected, abs=0.01)


def _answering(results: list[Rigid]) -> object:
    """Register, but return these transforms in turn."""
    remaining = iter(results)

    def answer(*arguments: object) -> RegistrationResult:
        found = register(*arguments)  # type: ignore[arg-type]
        return replace(found, fixed_to_moving=next(remaining))

    return answer


def test_two_different_answers_that_are_as_good_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    mri, pet = pair()
    pet = _moved(
        pet, _rigid((0.0, 0.0, 0.0), (6.0, 0.0, 0.0))
    )  # the headers are another initialisation than the centres
    ends = [Rigid.identity(), _rigid((0.0, 0.0, 0.0), (40.0, 0.0, 0.0))]
    monkeypatch.setattr(alignment, "register", _answering(ends))
    monkeypatch.setattr(alignment, "grid_mutual_information_bits", lambda *_: 1.0)
    result = align(mri, pet)
    assert result.trusted is False
    assert "the answers from the centres of the grids and from the headers are 40 mm apart" in result.reasons[-1]
    bits = iter([1.0, 0.5])
    monkeypatch.setattr(alignment, "register", _answering(ends))
    monkeypatch.setattr(alignment, "grid_mutual_information_bits", lambda *_: next(bits))
    assert not any("mm apart: look" in reason for reason in align(mri, pet).reasons)


def test_a_moved_pet_is_aligned(shared_data):
    mri, pet = brainweb(shared_data)
    parameters = torch.tensor([6.0, -5.0, 4.0, 4.0, -3.0, 5.0], dtype=torch.float64)
    truth = Rigid.from_parameters(parameters, mri.grid.center_mm())
    moved = pet.resampled(pet.grid, truth.inverse(), fill=0.0)  # the content of p in the MRI lies at truth(p) here
    found = align(mri, moved)
    points = mri.grid.corners_mm() * 0.5 + mri.grid.center_mm() * 0.5
    assert float(mean_displacement_mm(found.fixed_to_moving, truth, points)) < 2.0


def test_an_image_that_is_no_human_head_is_refused_by_name() -> None:
    mri, pet = (_scaled(image, 0.1) for image in pair())
    with pytest.raises(ImageError, match=r"mri\.nii\.gz: what it shows is 8\.\d+ mm long, expected a human head"):
        prepare_pair(mri, pet, voxels=32)
