"""What anatomy says of the rotation: the same in every world, and the maximum a posteriori in the closed-form fit."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from tests.geometry.strategies import rotations
from tests.registration.test_network_registration import CROP, problem
from torch import Tensor, nn

from crossalign.errors import SettingError
from crossalign.geometry import Grid, Rigid, axis_orientations, quarter_turn
from crossalign.geometry.fit import MatchMoments
from crossalign.models import Model, Stage
from crossalign.models.run_settings import RunSettings
from crossalign.registration import NetworkRegistration, register
from crossalign.registration.pose_prior import TRANSRECTAL, RotationPrior, expected_rotation

STEEP = RotationPrior((-20.0, 4.0, 6.0), (3.0, 6.0, 12.0), "a test")
GRID = Grid((20, 22, 24), (1.5, 1.0, 2.0), (3.0, -4.0, 5.0))
ROTATIONS = [one for one in axis_orientations().double() if float(torch.linalg.det(one)) > 0]


def turned(grid: Grid, rotation: Tensor) -> Grid:
    direction = (rotation @ torch.tensor(grid.direction, dtype=torch.float64)).tolist()
    rows = tuple((row[0], row[1], row[2]) for row in direction)
    return Grid(grid.shape, grid.spacing_mm, grid.origin_mm, (rows[0], rows[1], rows[2]))


def about_origin(rotation: Tensor) -> Rigid:
    return Rigid(rotation.double(), torch.zeros(3, dtype=torch.float64))


def test_in_the_patients_axes_it_is_the_prior_itself() -> None:
    found = expected_rotation(STEEP, GRID, Rigid.identity(), torch.eye(3, dtype=torch.float64))
    assert found is not None
    torch.testing.assert_close(found.rotation, STEEP.rotation())
    torch.testing.assert_close(found.precision.diagonal().rsqrt().rad2deg(), torch.tensor(STEEP.sd_deg).double())


@pytest.mark.parametrize("header", ROTATIONS)
def test_a_header_that_names_the_moving_axes_wrongly_changes_nothing(header: Tensor) -> None:
    """The moving image's header is turned, and the initial transform with it: the same voxels meet."""
    plain = expected_rotation(STEEP, GRID, Rigid.identity(), torch.eye(3, dtype=torch.float64))
    found = expected_rotation(STEEP, turned(GRID, header), about_origin(header), torch.eye(3, dtype=torch.float64))
    assert plain is not None
    assert found is not None
    torch.testing.assert_close(header.mT @ found.rotation, plain.rotation)
    torch.testing.assert_close(found.precision, plain.precision)


@given(world=rotations(), other=rotations())
def test_other_worlds(world: Tensor, other: Tensor) -> None:
    plain = expected_rotation(STEEP, GRID, Rigid.identity(), torch.eye(3, dtype=torch.float64))
    assert plain is not None
    fixed, moving = about_origin(world), about_origin(other)
    moved = plain.in_frames(fixed, moving)
    again = moved.in_frames(fixed.inverse(), moving.inverse())
    torch.testing.assert_close(again.rotation, plain.rotation)
    torch.testing.assert_close(again.precision, plain.precision)
    there = moving @ about_origin(plain.rotation) @ fixed.inverse()
    assert moved.deviation_deg(there) == pytest.approx(0, abs=1e-5)


DIAGONAL = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64) / 3**0.5  # quarter turns come nowhere near it
FLAT = RotationPrior((0.0, 0.0, 0.0), (9.0, 9.0, 9.0), "a test")
ASLANT = torch.from_numpy(Rotation.from_rotvec(np.deg2rad([0.0, 0.0, 180.0])).as_matrix())


def diagonal(degrees: float) -> Tensor:
    return torch.from_numpy(Rotation.from_rotvec(DIAGONAL.numpy() * np.deg2rad(degrees)).as_matrix())


@pytest.mark.parametrize(("degrees", "used"), [(5.0, True), (38.0, True), (42.0, False)])
def test_a_start_that_no_way_to_lie_explains_has_no_prior(degrees: float, used: bool) -> None:
    """The moving header is wrong by a half turn, so that it cannot be believed."""
    moving = turned(GRID, ASLANT)
    initial = about_origin(ASLANT @ diagonal(degrees))
    found = expected_rotation(FLAT, moving, initial, torch.eye(3, dtype=torch.float64))
    assert (found is not None) == used


@pytest.mark.parametrize(("degrees", "used"), [(50.0, True), (58.0, True), (62.0, False)])
@pytest.mark.parametrize("both", [False, True], ids=["headers right", "both wrong alike"])
def test_far_starts_have_the_prior_of_headers_that_can_be_believed(degrees: float, used: bool, both: bool) -> None:
    """A start that is off by 50 degrees about an axis is nearer to a quarter turn: only the headers tell."""
    wrong = ASLANT if both else torch.eye(3, dtype=torch.float64)
    off = torch.from_numpy(Rotation.from_rotvec(np.deg2rad([0.0, 0.0, degrees - 10.0])).as_matrix())
    tilt = torch.from_numpy(Rotation.from_rotvec(np.deg2rad([10.0, 0.0, 0.0])).as_matrix())
    initial = about_origin(off @ tilt) if degrees < 60 else about_origin(diagonal(degrees))
    found = expected_rotation(FLAT, turned(GRID, wrong), initial, wrong)
    assert (found is not None) == used
    if found is not None:
        torch.testing.assert_close(found.rotation, torch.eye(3, dtype=torch.float64))


@given(seed=st.integers(0, 10**6), variance_mm2=st.floats(0.5, 50))
def test_the_closed_form_is_the_maximum_a_posteriori(seed: int, variance_mm2: float) -> None:
    """Against a direct search over rotation vectors of the sum of squares and the prior, to second order."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(1, 40, 3, generator=generator, dtype=torch.float64) * torch.tensor([12.0, 20.0, 16.0])
    truth = Rotation.from_rotvec(np.deg2rad((torch.rand(3, generator=generator) * 16 - 8).numpy()))
    matches = points @ torch.from_numpy(truth.as_matrix()).mT
    matches = matches + torch.randn(matches.shape, generator=generator, dtype=torch.float64)
    prior = RotationPrior((2.0, -3.0, 1.0), (4.0, 5.0, 6.0), "a test")
    expected = expected_rotation(prior, GRID, Rigid.identity(), torch.eye(3, dtype=torch.float64))
    assert expected is not None
    moments = MatchMoments.of(points, matches)
    found = moments.fit(variance_mm2 * expected.attraction()).rotation[0]

    def energy(vector: np.ndarray) -> float:
        rotation = torch.from_numpy(Rotation.from_rotvec(vector).as_matrix())
        squares = float(
            (points[0] @ rotation.mT - matches[0] + moments.to_center - moments.from_center @ rotation.mT)
            .square()
            .sum(-1)
            .mean()
        )
        off = torch.from_numpy(Rotation.from_matrix((expected.rotation.mT @ rotation).numpy()).as_rotvec())
        return squares / 2 / variance_mm2 + float(off @ expected.precision @ off) / 2

    best = minimize(energy, Rotation.from_matrix(found.numpy()).as_rotvec(), tol=1e-10).x
    away = Rotation.from_matrix(found.numpy()).inv() * Rotation.from_rotvec(best)
    assert np.rad2deg(away.magnitude()) < 0.25


class Matcher(nn.Module):
    """A network whose matches say where, and of the rotation as much as `spread_mm` lets them."""

    def __init__(self, spread_mm: float) -> None:
        super().__init__()
        self.points = torch.cat((torch.eye(3), -torch.eye(3)))[None] * spread_mm

    def forward_with_fit(self, fixed: Tensor, _: Tensor) -> tuple[MatchMoments, Tensor]:
        points = self.points.expand(len(fixed), -1, -1)
        return MatchMoments.of(points, points + torch.tensor([3.0, 0.0, 0.0])), torch.ones(len(fixed))

    def forward(self, fixed: Tensor, _: Tensor) -> Tensor:
        return torch.tensor([[3.0, 0.0, 0.0, 0.0, 0.0, 0.0]]).expand(len(fixed), -1)


@pytest.mark.parametrize(("spread_mm", "angle_deg"), [(0.01, 21.0), (1000.0, 0.0)])
def test_a_network_that_says_nothing_of_the_rotation_answers_with_the_prior(spread_mm: float, angle_deg: float) -> None:
    given = problem()
    network = NetworkRegistration(Model(Stage(Matcher(spread_mm), CROP, {}), RunSettings(match_variance_mm2=4.0)))
    initial = given.initial
    aligned = replace(given, initial=Rigid(torch.eye(3, dtype=torch.float64), initial.translation_mm))
    result = register(given.fixed, given.moving, network, aligned.initial, given.fixed_mask, prior=STEEP)
    assert result.angle_deg() == pytest.approx(angle_deg, abs=0.6)
    assert result.shift_mm() == pytest.approx(3.0, abs=1e-4)


def test_words_and_numbers() -> None:
    assert "degrees" in TRANSRECTAL.text()
    assert "transrectal" in TRANSRECTAL.text()
    assert float(Rigid(TRANSRECTAL.rotation(), torch.zeros(3)).angle_deg()) == pytest.approx(7.6, abs=0.1)


def test_the_networks_shift_is_along_the_patients_axes_and_belongs_to_the_prior() -> None:
    given = problem()
    run = RunSettings(match_variance_mm2=4.0, network_shift_mm=(0.5, 1.2, -2.0))
    network = NetworkRegistration(Model(Stage(Matcher(1000.0), CROP, {}), run))
    initial = Rigid(torch.eye(3, dtype=torch.float64), given.initial.translation_mm)
    quarter = quarter_turn(1)

    def moved(prior: RotationPrior | None, patient: Tensor | None = None) -> Tensor:
        asked = replace(given, initial=initial, prior=prior, fixed_to_patient=patient)
        center = given.center_mm[None]
        found = network.solve(asked).steps[-1].fixed_to_moving
        return (found.apply(center) - initial.apply(center))[0]

    plain = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
    shifted = torch.tensor([3.5, 1.2, -2.0], dtype=torch.float64)
    torch.testing.assert_close(moved(None), plain, atol=0.01, rtol=0)
    torch.testing.assert_close(moved(STEEP), shifted, atol=0.01, rtol=0)
    torch.testing.assert_close(moved(STEEP, quarter), quarter.mT @ shifted, atol=0.01, rtol=0)


def test_a_shift_of_networks_is_three_lengths_within_bounds() -> None:
    with pytest.raises(SettingError, match="three lengths of 20 mm at most, got"):
        RunSettings(network_shift_mm=(0.0, math.inf, 0.0))
