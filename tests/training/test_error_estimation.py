"""The error-estimation head is trained alone, and learns when the crops are rotated."""

import pytest
import torch
from tests.training.toys import make_dataset

from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.models import Stage, StageSettings
from crossalign.networks.correspondence import CorrespondenceReg
from crossalign.training import NO_AUGMENTATION
from crossalign.training.dataset import rotated
from crossalign.training.sampling import draw_batch
from crossalign.training.settings import ErrorHeadSettings
from crossalign.training.tasks.error_estimation import rotated_batch, train_error_head
from crossalign.training.tasks.registration import seeded_network

SMALL = StageSettings("correspondence", (16, 16, 16), 4.0, 3.0)


def stage() -> Stage:
    return Stage(seeded_network(SMALL, 0), SMALL, {})


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_rotated_crops_are_crops_of_a_rotated_dataset(quarters: int) -> None:
    dataset, index = make_dataset(2, 1), torch.arange(2)
    whole = rotated(dataset, quarters)
    start = draw_batch(dataset, index, SMALL, (0.0, 0.0), NO_AUGMENTATION, torch.Generator().manual_seed(0))
    other = draw_batch(whole, index, SMALL, (0.0, 0.0), NO_AUGMENTATION, torch.Generator().manual_seed(0))
    made = rotated_batch(start, torch.full((2,), quarters))
    torch.testing.assert_close(made.fixed, other.fixed, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(made.moving, other.moving, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(made.surface_mm, other.surface_mm, atol=1e-3, rtol=1e-3)


def test_the_answer_rotates_with_the_crops() -> None:
    batch = draw_batch(
        make_dataset(3, 2), torch.arange(3), SMALL, (8.0, 8.0), NO_AUGMENTATION, torch.Generator().manual_seed(1)
    )
    made = rotated_batch(batch, torch.tensor([1, 2, 3]))
    before = batch.correction.apply(batch.surface_mm) - batch.surface_mm
    after = made.correction.apply(made.surface_mm) - made.surface_mm
    torch.testing.assert_close(before.norm(dim=-1), after.norm(dim=-1), atol=1e-3, rtol=1e-3)
    again = rotated_batch(made, torch.tensor([3, 2, 1]))
    torch.testing.assert_close(again.moving, batch.moving)
    undone: Rigid = again.correction
    torch.testing.assert_close(undone.rotation, batch.correction.rotation, atol=1e-5, rtol=1e-5)


def test_only_the_head_is_trained_and_it_learns() -> None:
    trained = stage()
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    losses = train_error_head(trained, make_dataset(4, 1), ErrorHeadSettings(steps=30, batch=6, rate=2e-2))
    changed = {
        name.split(".")[0] for name, value in trained.network.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {"error_head"}
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])
    assert isinstance(trained.network, CorrespondenceReg)
    assert not trained.network.training


def test_networks_without_the_head_are_refused() -> None:
    settings = StageSettings("feature-reg", (16, 16, 16), 4.0, 3.0)
    with pytest.raises(InputError, match="only 'correspondence' has"):
        train_error_head(Stage(seeded_network(settings, 0), settings, {}), make_dataset(2), ErrorHeadSettings())
    with pytest.raises(InputError, match="'steps' must be 1 or more"):
        ErrorHeadSettings(steps=0)
    with pytest.raises(InputError, match="upwards"):
        ErrorHeadSettings(initial_sre_mm=(5.0, 1.0))
