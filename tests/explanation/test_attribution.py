"""Integrated gradients: exact where the answer is known, and nothing left over elsewhere."""

import pytest
import torch
from tests.explanation import planted
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.explanation import attribute_parameters, integrated_gradients
from crossalign.explanation.crops import mask_on_crop
from crossalign.explanation.gradients import PARAMETERS
from crossalign.geometry import Grid
from crossalign.images import LabelMap

SHAPE = (4, 5, 6)


class Weights(nn.Module):
    """Each output is a weighted sum of the voxels of both crops, to a power."""

    def __init__(self, power: int, generator: torch.Generator) -> None:
        super().__init__()
        self.power = power
        self.weights = nn.Parameter(torch.randn(6, 2, *SHAPE, generator=generator))

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        both = torch.cat((fixed, moving), dim=1) ** self.power
        return torch.einsum("bczyx,kczyx->bk", both, self.weights) + 3


def crops(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.rand(1, 1, *SHAPE, generator=generator), torch.rand(1, 1, *SHAPE, generator=generator)


def test_a_linear_network_gives_weight_times_voxel() -> None:
    generator = torch.Generator().manual_seed(0)
    model, (fixed, moving) = Weights(1, generator), crops(generator)
    parts, empty = integrated_gradients(model, fixed, moving, steps=1)
    expected = model.weights.detach() * torch.cat((fixed, moving))[:, 0]
    torch.testing.assert_close(parts.float(), expected)
    torch.testing.assert_close(empty, torch.full((6,), 3.0, dtype=torch.float64))


def test_a_square_needs_its_path() -> None:
    generator = torch.Generator().manual_seed(1)
    model, (fixed, moving) = Weights(2, generator), crops(generator)
    parts, _ = integrated_gradients(model, fixed, moving, steps=3)  # the midpoint rule is exact for a square
    expected = model.weights.detach() * torch.cat((fixed, moving))[:, 0] ** 2
    torch.testing.assert_close(parts.float(), expected)


@pytest.mark.parametrize(("name", "left_over"), [("attention-reg", 0.12), ("correspondence", 0.3)])
def test_the_parts_add_up_to_the_answer(name: str, left_over: float, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name.replace("-", "_"))
    pairs = planted.plant(1, torch.Generator().manual_seed(2))
    found = attribute_parameters(planted.crop_of(name, model, pairs.fixed, pairs.moving), steps=32)
    assert [one.name for one in found] == list(PARAMETERS)
    change = max(abs(one.value - one.baseline_value) for one in found)
    assert (
        max(abs(one.convergence_delta) for one in found) < left_over * change
    )  # a fit's rotations turn sharply on the path
    assert all(parameter.grad is None for parameter in model.parameters())
    for one in found:
        assert 0 < one.fixed_fraction < 1
        assert one.fixed_fraction + one.moving_fraction == 1
        assert torch.isnan(torch.tensor(one.map.fraction_inside(None)))


def test_fractions_in_a_mask() -> None:
    pairs = planted.plant(1, torch.Generator().manual_seed(2))
    crop = planted.crop_of("correspondence", planted.untrained("correspondence", 1), pairs.fixed, pairs.moving)
    grid = Grid.centered((0.0, 0.0, 0.0), (40, 40, 40), (2.0, 2.0, 2.0))
    everywhere = mask_on_crop(LabelMap(torch.ones(grid.shape, dtype=torch.int64), grid), crop.grid)
    half = mask_on_crop(LabelMap((grid.points_mm()[..., 2] > 0).long(), grid), crop.grid)
    assert half is not None
    assert float(half.double().mean()) == pytest.approx(0.5)
    for one in attribute_parameters(crop, steps=2):
        assert one.map.fraction_inside(everywhere) == pytest.approx(1)
        assert 0.2 < one.map.fraction_inside(half) < 0.8


def test_no_steps_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(InputError, match="1 step or more, got 0"):
        integrated_gradients(Weights(1, generator), *crops(generator), steps=0)
