"""Orientations: said, recognised, judged; with a network that knows one scan by heart."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Grid, Rigid, codes_like, euler_to_rotation, orientation_rotations, quarter_turn
from crossalign.images import Image
from crossalign.models.recognition_settings import RecognitionSettings
from crossalign.networks.recognition import CropEncoder, RecognitionNet
from crossalign.registration import Identity, register
from crossalign.registration.orientation import AUTO, HEADER, OrientationRequest, find_orientation
from crossalign.registration.oriented import Oriented
from crossalign.registration.problem import Problem, Solution
from crossalign.registration.recognition import SHIFTS_MM, Recognizer, ScanView

ROTATIONS = orientation_rotations()
CENTER = torch.tensor([10.0, -20.0, 30.0], dtype=torch.float64)
GRID = Grid.centered((10.0, -20.0, 30.0), (40, 40, 40), (3.0, 3.0, 3.0))


def scan(grid: Grid = GRID) -> Image:
    """A cube with a blob of its own size on each of three sides: it looks otherwise from every side."""
    points = GRID.points_mm() - CENTER
    voxels = torch.full(GRID.shape, 0.2)
    for at, radius in (((30.0, 0.0, 0.0), 12.0), ((0.0, 32.0, 0.0), 18.0), ((0.0, 5.0, -30.0), 8.0)):
        voxels += torch.exp(-((points - torch.tensor(at)) / radius).square().sum(-1)).float()
    return Image(voxels, grid, "scan")


def turned(rotation: Tensor) -> Grid:
    """The grid of the same voxels, whose header turns the axes about the middle."""
    origin = rotation @ (torch.tensor(GRID.origin_mm, dtype=torch.float64) - CENTER) + CENTER
    (a, b, c), (x, y, z) = (rotation @ torch.eye(3, dtype=torch.float64)).tolist(), origin.tolist()
    return Grid(GRID.shape, GRID.spacing_mm, (x, y, z), (tuple(a), tuple(b), tuple(c)))


class Plain(CropEncoder):
    """Hands the crop on as it is."""

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        return crop, crop[:, :1]


class Knowing(RecognitionNet):
    """Scores how much both crops look like the upright scan."""

    def __init__(self, sharpness: float = 60.0, bias: float = -50.0) -> None:
        super().__init__()
        self.fixed_encoder = self.moving_encoder = Plain(2, 2)
        self.sharpness, self.bias, self.upright = sharpness, bias, torch.zeros(1)

    def compare(self, fixed: Tensor, moving: Tensor) -> Tensor:
        alike = [torch.cosine_similarity(one[:, :1].flatten(1), self.upright.flatten(1)) for one in (fixed, moving)]
        return self.sharpness * (alike[0] + alike[1]) / 2 + self.bias


class Weighing(Identity):
    """Answers with the initial transform; keeps the probability of the orientation that it was told."""

    def __init__(self, weighs: bool) -> None:
        self.__dict__.update(weighs=weighs, told=[])

    @property
    def weighs_orientation(self) -> bool:
        return bool(self.__dict__["weighs"])

    def solve(self, problem: Problem) -> Solution:
        self.__dict__["told"].append(problem.orientation_probability)
        return super().solve(problem)


def recognizer(sharpness: float = 600.0, bias: float = -500.0) -> Recognizer:
    network = Knowing(sharpness, bias)
    found = Recognizer(network, RecognitionSettings())
    view = ScanView(scan(), None, torch.eye(3, dtype=torch.float64), ROTATIONS[:1])
    network.upright = found.crops(view, SHIFTS_MM[:1])[:, :1]
    return found


@pytest.mark.parametrize("number", range(24))
def test_a_lying_header_is_found_out(number: int) -> None:
    rotation = ROTATIONS[number]
    moving = scan(turned(rotation))
    found = find_orientation(OrientationRequest(scan(), moving), recognizer())
    assert torch.equal(found.moving_to_patient, rotation.mT)
    assert (
        found.moving_code == codes_like(moving.grid)[[torch.equal(one, rotation.mT) for one in ROTATIONS].index(True)]
    )
    assert found.reasons == ()
    initial = found.rotated(Rigid.identity(), GRID, moving.grid, CENTER)
    true = Rigid(rotation, CENTER - rotation @ CENTER)
    torch.testing.assert_close(initial.matrix(), true.matrix(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("number", [2, 7, 19])
def test_both_headers_may_lie(number: int) -> None:
    first, second = ROTATIONS[number], ROTATIONS[23 - number]
    request = OrientationRequest(scan(turned(first)), scan(turned(second)), fixed_orientation=AUTO)
    found = find_orientation(request, recognizer())
    assert torch.equal(found.fixed_to_patient, first.mT)
    assert torch.equal(found.moving_to_patient, second.mT)


def test_what_is_said_of_the_axes_is_done() -> None:
    moving = scan(turned(quarter_turn(1)))
    code = codes_like(moving.grid)[0]
    found = find_orientation(OrientationRequest(scan(), moving, moving_orientation=code), None)
    assert torch.equal(found.moving_to_patient, torch.eye(3, dtype=torch.float64))
    said = find_orientation(OrientationRequest(scan(), moving, moving_orientation="LPS"), None)
    assert torch.equal(said.moving_to_patient, quarter_turn(-1))
    assert (said.fixed_code, said.moving_code, said.probability) == ("LPS", "LPS", None)


def test_scans_that_look_alike_from_several_sides_are_not_trusted() -> None:
    found = find_orientation(OrientationRequest(scan(), scan(turned(quarter_turn(1)))), recognizer(1.0, 5.0))
    assert len(found.reasons) == 1
    assert "orientation is not sure" in found.reasons[0]
    assert f"try --moving-orientation {found.runner_up}" in found.reasons[0]


def test_scans_of_something_else_are_not_trusted() -> None:
    noise = Image(torch.rand(GRID.shape, generator=torch.Generator().manual_seed(0)), GRID, "noise")
    found = find_orientation(OrientationRequest(scan(), noise), recognizer())
    assert found.none_probability is not None
    assert found.none_probability > 0.9
    assert "do not look like the MR and the transrectal ultrasound of a prostate" in found.reasons[0]


def test_a_tracked_transform_says_how_the_moving_image_lies_and_is_judged() -> None:
    tilt = euler_to_rotation(torch.tensor([0.3, -0.2, 1.2], dtype=torch.float64))
    moving, true = scan(turned(tilt)), Rigid(tilt, CENTER - tilt @ CENTER)
    request = OrientationRequest(scan(), moving, moving_orientation=HEADER, initial=true)
    right = find_orientation(request, recognizer(600.0, -480.0))
    assert (right.reasons, right.doubts) == ((), ())
    turned_away = replace(request, initial=Rigid(tilt @ quarter_turn(1), torch.zeros(3, dtype=torch.float64)))
    wrong = find_orientation(turned_away, recognizer(600.0, -480.0))
    assert "does not look as it does where the initial transform is right" in wrong.doubts[0]
    assert wrong.reasons_beside(weighed=False) == wrong.doubts
    assert wrong.reasons_beside(weighed=True) == ()


@pytest.mark.parametrize("weighed", [False, True])
def test_a_method_may_weigh_the_orientation_itself(weighed: bool) -> None:
    request = OrientationRequest(scan(), scan(), moving_orientation=HEADER, initial=Rigid.identity())
    found = replace(find_orientation(request, None), probability=0.125, doubts=("it looks turned",))
    method = Weighing(weighed)
    result = register(scan(), scan(), method, Rigid.identity(), orientation=found)
    assert method.__dict__["told"] == [0.125]
    assert result.reasons == (() if weighed else ("it looks turned",))
    assert Oriented(method).weighs_orientation is weighed


def test_a_tracked_transform_leaves_no_moving_orientation_to_be_said() -> None:
    request = OrientationRequest(scan(), scan(), moving_orientation="LPS", initial=Rigid.identity())
    with pytest.raises(InputError, match="is for an initialisation without a tracker"):
        find_orientation(request, None)


def test_without_the_network_nothing_is_recognised() -> None:
    with pytest.raises(InputError, match="'auto' needs the recognition network"):
        find_orientation(OrientationRequest(scan(), scan()), None)
    with pytest.raises(InputError, match="would mirror the patient"):
        find_orientation(OrientationRequest(scan(), scan(), moving_orientation="RPS"), None)


def test_doubts_of_the_orientation_are_the_results() -> None:
    moving = scan(turned(quarter_turn(1)))
    found = find_orientation(OrientationRequest(scan(), moving), recognizer(1.0, 5.0))
    initial = found.rotated(Rigid.identity(), GRID, moving.grid, CENTER)
    result = register(scan(), moving, Identity(), initial, orientation=found)
    assert result.trusted is False
    assert result.reasons[: len(found.reasons)] == found.reasons
    assert result.settings["orientation"] == found.text()
