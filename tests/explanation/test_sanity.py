"""Do the maps show what the network uses? They find a planted blob, and change when the weights are drawn anew."""

from collections.abc import Iterator
from statistics import mean

import pytest
import torch
from tests.explanation import planted
from torch import nn

from crossalign.explanation import attribute_parameters, grad_cams
from crossalign.explanation.crops import CropMap, StageCrop

PAIRS = planted.plant(4, torch.Generator().manual_seed(99))


def crops(name: str, model: nn.Module, count: int = 4) -> Iterator[StageCrop]:
    for index in range(count):
        yield planted.crop_of(name, model, PAIRS.fixed[index : index + 1], PAIRS.moving[index : index + 1])


def cams(name: str, model: nn.Module, way: str) -> list[list[CropMap]]:
    """Every map of one kind, by block, then by pair."""
    found = [grad_cams(crop, planted.LEVER_MM) for crop in crops(name, model)]
    return [list(maps) for maps in zip(*found, strict=True) if maps[0].name.startswith(way)]


def gains(maps: list[CropMap]) -> float:
    """The map's fraction near the blob over the volume's fraction there: 1 is a map that knows nothing."""
    return mean(one.fraction_inside(PAIRS.near(n)) / float(PAIRS.near(n).float().mean()) for n, one in enumerate(maps))


def parameters(name: str, model: nn.Module) -> list[list[CropMap]]:
    found = [attribute_parameters(crop, steps=6) for crop in crops(name, model, 2)]
    return [[one.map for one in pair] for pair in zip(*found, strict=True)][:3]


def test_attention_reg_has_learnt(attention_reg: nn.Module) -> None:
    with torch.no_grad():
        found = attention_reg(PAIRS.fixed, PAIRS.moving)[:, :3] / planted.SPACING_MM
    error = (found - PAIRS.moved).norm(dim=-1).mean()
    assert float(error) < 0.95 * float(PAIRS.moved.norm(dim=-1).mean())


def test_grad_cam_of_attention_reg_finds_the_blob(attention_reg: nn.Module) -> None:
    assert min(gains(maps) for maps in cams("attention-reg", attention_reg, "gradcam")) > 1.5
    assert min(gains(maps) for maps in cams("attention-reg", attention_reg, "local")) > 1.5


def test_grad_cam_by_position_of_correspondence_finds_the_blob(correspondence: nn.Module) -> None:
    """On the moving side, where the match is looked for; seconds of training do not sharpen the fixed one."""
    found = cams("correspondence", correspondence, "local")
    assert [maps[0].name for maps in found] == [
        f"local-layer{number}-{side}" for side in ("fixed", "moving") for number in (1, 2)
    ]
    assert min(gains(maps) for maps in found if maps[0].scan == "moving") > 2
    before = [gains(maps) for maps in cams("correspondence", planted.untrained("correspondence", 5), "local")]
    assert max(before) < 1.6


@pytest.mark.parametrize("name", ["correspondence", "attention-reg"])
def test_parameters_depend_on_the_blob(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name.replace("-", "_"))
    assert min(gains(maps) for maps in parameters(name, model)) > 3


def test_other_weights_give_other_maps(correspondence: nn.Module) -> None:
    other = planted.untrained("correspondence", 5)
    for way in ("gradcam", "local"):
        pairs = zip(cams("correspondence", correspondence, way), cams("correspondence", other, way), strict=True)
        for ours, theirs in pairs:
            found = [planted.correlation(a.image.voxels, b.image.voxels) for a, b in zip(ours, theirs, strict=True)]
            assert mean(found) < 0.4


@pytest.mark.parametrize("name", ["correspondence", "attention-reg"])
def test_other_weights_depend_on_other_positions(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name.replace("-", "_"))
    pairs = zip(parameters(name, model), parameters(name, planted.untrained(name, 5)), strict=True)
    found = [
        planted.correlation(a.image.voxels, b.image.voxels)
        for ours, theirs in pairs
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert mean(found) < 0.8


def test_a_bright_thing_shows_in_an_untrained_attention_reg_too(attention_reg: nn.Module) -> None:
    """What docs/concepts/explanation.md warns of: a map that looks sensible is no proof that anything was learnt."""
    ours = cams("attention-reg", attention_reg, "gradcam")
    theirs = cams("attention-reg", planted.untrained("attention-reg", 5), "gradcam")
    for block, other in zip(ours, theirs, strict=True):
        found = [planted.correlation(a.image.voxels, b.image.voxels) for a, b in zip(block, other, strict=True)]
        assert 0.2 < mean(found) < 0.99
