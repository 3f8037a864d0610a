"""Training of the recognition network: what is drawn, and that it learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.toys import make_dataset
from torch import Tensor

from crossalign.errors import WeightsError
from crossalign.geometry import orientation_rotations
from crossalign.models.recognition import load_recognition, save_recognition
from crossalign.models.recognition_settings import RecognitionSettings
from crossalign.networks.recognition import RecognitionNet, rotated_crop
from crossalign.training import STRONG_AUGMENTATION
from crossalign.training.recognition_pairs import HALF_TURNS, OTHERS, RecognitionBatch, RecognitionPairs
from crossalign.training.tasks.recognition import RecognitionTask, RecognitionTrainingSettings

SETTINGS = RecognitionSettings(width=2)
EACH = 1 + HALF_TURNS + OTHERS
ROTATIONS = orientation_rotations().float()


def others() -> Tensor:
    return torch.rand(3, 1, 30, 30, 30, generator=torch.Generator().manual_seed(4)).half()


def batch(seed: int = 0, none_fraction: float = 0.0) -> RecognitionBatch:
    pairs = RecognitionPairs(make_dataset(4), others(), SETTINGS, STRONG_AUGMENTATION)
    return pairs.draw(torch.arange(4), torch.Generator().manual_seed(seed), none_fraction)


@pytest.mark.parametrize("number", range(24))
def test_a_crop_is_rotated_as_its_points_are(number: int) -> None:
    rotation = ROTATIONS[number]
    axis = torch.arange(5.0) - 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack((x, y, z), -1)

    def shown(at: Tensor) -> Tensor:
        return (at @ torch.tensor([1.0, 10.0, 100.0]))[None, None]

    torch.testing.assert_close(rotated_crop(shown(points), rotation), shown(points @ rotation))


def test_rotations_of_crops_compose() -> None:
    crop = torch.rand(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for one, other in ((5, 9), (17, 2), (23, 11)):
        first, second = ROTATIONS[one], ROTATIONS[other]
        assert torch.equal(rotated_crop(rotated_crop(crop, first), second), rotated_crop(crop, second @ first))


def test_candidates_are_the_first_one_rotated() -> None:
    drawn = batch()
    moving = drawn.moving.unflatten(0, (4, EACH))
    assert drawn.fixed.shape == (4, 2, 24, 24, 24)
    assert bool(drawn.known.all())
    for number in range(1, HALF_TURNS + 1):
        torch.testing.assert_close(moving[:, number], rotated_crop(moving[:, 0], ROTATIONS[number]))
    assert not torch.equal(moving[:, 0], moving[:, HALF_TURNS + 1])


def test_the_same_seed_draws_the_same() -> None:
    one, same, other = batch(3, 0.5), batch(3, 0.5), batch(4, 0.5)
    assert torch.equal(one.moving, same.moving)
    assert torch.equal(one.known, same.known)
    assert not torch.equal(one.moving, other.moving)


def test_pairs_of_something_else_are_marked() -> None:
    drawn = batch(0, 1.0)
    assert not bool(drawn.known.any())
    assert not torch.equal(drawn.moving, batch(0, 0.0).moving)


def task(steps: int) -> RecognitionTask:
    settings = RecognitionTrainingSettings(SETTINGS, steps=steps, batch=4, rate=1e-2, val_every=5)
    return RecognitionTask(make_dataset(4), make_dataset(4, 1), (others(), others()), settings)


def test_a_few_steps_lower_the_loss() -> None:
    training = task(12)
    model = training.fresh_model()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    for step in range(12):
        loss = training.loss(model.train(), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-4:]) < sum(losses[:4])


def test_the_network_is_kept_in_a_model_file(tmp_path: Path) -> None:
    path = tmp_path / "recognition.safetensors"
    network = RecognitionNet(SETTINGS.width).eval()
    save_recognition(network, SETTINGS, path)
    loaded, settings = load_recognition(path)
    assert settings == SETTINGS
    crop = torch.rand(2, 2, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded(crop, crop.flip(0)), network(crop, crop.flip(0)))
    save_recognition(network, replace(SETTINGS, width=3), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="do not fit this version"):
        load_recognition(tmp_path / "other.safetensors")
