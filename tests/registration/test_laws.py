"""Laws of every method: what the worlds of the two scans do to an answer, and what they must not do."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from crossalign.geometry import Grid, Rigid, mean_displacement_mm
from crossalign.images import Image, LabelMap
from crossalign.models import Model, Stage, StageSettings
from crossalign.networks import build_network
from crossalign.registration import Method, MutualInformation, NetworkRegistration, register
from crossalign.registration.iterative.method_settings import MI_BEST, MindSettings, MutualInformationSettings
from crossalign.registration.iterative.mind import MindSSD

FEW = settings(max_examples=3)
GRID = Grid.centered((0.0, 0.0, 0.0), (18, 20, 22), (5.0, 4.5, 4.0))
MOTION = Rigid.from_parameters(torch.tensor([5.0, -4.0, 3.0, 6.0, -5.0, 8.0], dtype=torch.float64), torch.zeros(3))
METHODS: dict[str, Method] = {
    "mi": MutualInformation(MutualInformationSettings(samples=2000, iterations=20, checks=1)),
    "mi-best": MutualInformation(replace(MI_BEST, samples=2000, initialisations=2, checks=0)),
    "mind": MindSSD(MindSettings(spacing_mm=(8.0, 5.0), points=300, initialisations=2)),
    "mind-best": MindSSD(MindSettings(spacing_mm=(8.0,), points=300, initialisations=2)),
}
USUAL: dict[str, Method] = {"mi": MutualInformation(MutualInformationSettings(checks=0)), "mind": MindSSD()}


def network() -> NetworkRegistration:
    generator = torch.Generator().manual_seed(5)
    setting = StageSettings("feature-reg", (12, 12, 12), 6.0, 4.0)
    model = build_network(setting.network, setting.crop_shape, setting.crop_spacing_mm)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    return NetworkRegistration(Model(Stage(model.eval(), setting, {})))


def textured(grid: Grid, seed: int) -> Image:
    noise = torch.randn(1, 1, 7, 7, 7, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(noise, size=grid.shape, mode="trilinear", align_corners=True)[0, 0]
    inside = ((grid.points_mm() - grid.center_mm()) / torch.tensor(grid.extent_mm())).norm(dim=-1) < 0.45
    return Image(torch.where(inside, smooth - smooth.min() + 0.5, torch.zeros(())), grid, "scan")


FIXED = textured(GRID, 3)
MOVING = replace(FIXED.resampled(GRID, MOTION.inverse(), fill=0.0), name="moving")
MASK = LabelMap(((GRID.points_mm().norm(dim=-1)) < 30).long(), GRID, "structure")
INITIAL = Rigid.identity()


def in_world(image: Image, world: Rigid) -> Image:
    """The same scan where the world's coordinates are others."""
    return Image(image.voxels, moved_grid(image.grid, world), image.name)


def moved_grid(grid: Grid, world: Rigid) -> Grid:
    direction = world.rotation @ torch.tensor(grid.direction, dtype=torch.float64)
    x, y, z = world.apply(torch.tensor([grid.origin_mm], dtype=torch.float64))[0].tolist()
    rows = [tuple(row) for row in direction.tolist()]
    return Grid(grid.shape, grid.spacing_mm, (x, y, z), (rows[0], rows[1], rows[2]))


def rigid(parameters: list[float]) -> Rigid:
    return Rigid.from_parameters(torch.tensor(parameters, dtype=torch.float64), torch.zeros(3))


# Turns below 45 degrees: beyond that another axis of the fixed image is the nearest to the patient's left.
worlds = st.tuples(*[st.floats(-1500, 1500) for _ in range(3)], *[st.floats(-20, 20) for _ in range(3)]).map(
    lambda values: rigid(list(values))
)


@pytest.mark.parametrize("name", [*METHODS, "network"])
@pytest.mark.parametrize("masked", [True, False])
@FEW
@given(world=worlds)
def test_a_common_change_of_both_worlds_changes_the_answer_by_that_change_alone(name, masked, world):
    method = network() if name == "network" else METHODS[name]
    mask = MASK if masked else None
    plain = register(FIXED, MOVING, method, INITIAL, mask).fixed_to_moving
    moved_mask = None if mask is None else LabelMap(mask.labels, moved_grid(mask.grid, world), mask.name)
    result = register(
        in_world(FIXED, world), in_world(MOVING, world), method, world @ INITIAL @ world.inverse(), moved_mask
    )
    back = world.inverse() @ result.fixed_to_moving @ world
    assert float(mean_displacement_mm(back, plain, MASK.points_mm())) < 0.05


@pytest.mark.parametrize("name", METHODS)
@FEW
@given(world=worlds)
def test_the_moving_worlds_own_frame_does_not_matter_when_the_start_says_where_it_is(name, world):
    method = METHODS[name]
    plain = register(FIXED, MOVING, method, INITIAL, MASK).fixed_to_moving
    other = register(FIXED, in_world(MOVING, world), method, world @ INITIAL, MASK).fixed_to_moving
    assert float(mean_displacement_mm(world.inverse() @ other, plain, MASK.points_mm())) < 0.05


@pytest.mark.parametrize("name", ["mi", "mind"])
@pytest.mark.parametrize("factor", [0.02, 0.2, 8.0])
def test_a_mouse_and_a_phantom_of_a_metre_are_registered_too(name, factor):
    scaled = [Image(image.voxels, scaled_grid(image.grid, factor), image.name) for image in (FIXED, MOVING)]
    mask = LabelMap(MASK.labels, scaled_grid(MASK.grid, factor), MASK.name)
    result = register(scaled[0], scaled[1], USUAL[name], INITIAL, mask)
    truth = Rigid(MOTION.rotation, MOTION.translation_mm * factor)
    points = MASK.points_mm() * factor
    before = float(mean_displacement_mm(INITIAL, truth, points))
    remaining = float(mean_displacement_mm(result.fixed_to_moving, truth, points)) / before
    assert remaining < {"mi": 0.1, "mind": 0.5}[name]  # the motion penalty of mind favours the initial transform


def scaled_grid(grid: Grid, factor: float) -> Grid:
    x, y, z = (value * factor for value in grid.spacing_mm)
    a, b, c = (value * factor for value in grid.origin_mm)
    return Grid(grid.shape, (x, y, z), (a, b, c), grid.direction)


@pytest.mark.parametrize("name", ["mi", "mind"])
@pytest.mark.parametrize("padding", [255.0, -1024.0, -3024.0, 65535.0])
def test_padding_of_any_value_gives_the_answer_that_0_gives(name, padding):
    """Outside of the structure both scans hold one value, above or below the grey values; 0 lies among them."""

    def answer(value: float) -> Rigid:
        padded = [Image(torch.where(i.voxels > 0, i.voxels - 2.0, value), i.grid, i.name) for i in (FIXED, MOVING)]
        return register(padded[0], padded[1], METHODS[name], INITIAL).fixed_to_moving

    assert float(mean_displacement_mm(answer(padding), answer(0.0), MASK.points_mm())) < 0.05
