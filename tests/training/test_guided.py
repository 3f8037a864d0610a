"""The loss of correspondence networks: what it adds to the SRE, and what it leaves out."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tests.training.toys import SPACING_MM, make_dataset
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import mean_displacement_mm
from crossalign.models import StageSettings
from crossalign.networks import build_network
from crossalign.networks.correspondence import CorrespondenceReg, Matching
from crossalign.training import PairDataset, TrainingSettings
from crossalign.training.sampling import Batch, draw_batch
from crossalign.training.settings import NO_AUGMENTATION
from crossalign.training.tasks.registration import (
    ERROR_WEIGHT,
    MASK_WEIGHT,
    MATCH_WEIGHT,
    OUTSIDE,
    RegistrationTask,
    guided_loss,
    match_error_mm,
)

STAGE = StageSettings("correspondence", (8, 8, 8), 5.0, SPACING_MM)


def drawn(dataset: PairDataset) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return draw_batch(dataset, torch.arange(len(dataset)), STAGE, (3.0, 9.0), NO_AUGMENTATION, generator, masks=True)


def network() -> CorrespondenceReg:
    torch.manual_seed(0)
    model = build_network("correspondence", (8, 8, 8), 5.0)
    assert isinstance(model, CorrespondenceReg)
    return model


def at_the_truth(found: Matching, batch: Batch) -> Matching:
    return dataclasses.replace(found, motion=batch.correction, matches_mm=batch.correction.apply(found.positions_mm))


def test_masks_lie_where_the_scans_do() -> None:
    """At the reference both crops show one structure at one position; the toys' masks are exact."""
    dataset = make_dataset(3)
    generator = torch.Generator().manual_seed(0)
    batch = draw_batch(dataset, torch.arange(3), STAGE, (0.0, 0.0), NO_AUGMENTATION, generator, masks=True)
    assert batch.fixed_mask is not None
    assert batch.moving_mask is not None
    assert batch.fixed_mask.shape == (3, 1, 4, 4, 4)
    assert float(batch.fixed_mask.mean()) > 0.1
    assert float((batch.fixed_mask - batch.moving_mask).abs().mean()) < 0.06  # two grids cut one edge


def test_match_error_by_hand() -> None:
    batch = drawn(make_dataset(2))
    found = network().match(batch.fixed, batch.moving)
    assert batch.fixed_mask is not None
    wide = F.max_pool3d(batch.fixed_mask, 3, 1, 1)
    for n in range(2):
        total, weights = torch.zeros(()), 0.0
        for k, (position, match) in enumerate(zip(found.positions_mm[n], found.matches_mm[n], strict=True)):
            z, y, x = k // 4, k // 2 % 2, k % 2
            weight = float(wide[n, 0, 2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()) + OUTSIDE
            truth = batch.correction[n].apply(position[None])[0]
            total = total + weight * (torch.sqrt((match - truth).square().sum() + 1) - 1)
            weights += weight
        torch.testing.assert_close(
            match_error_mm(found, batch.correction, batch.fixed_mask)[n], total / weights, atol=1e-4, rtol=1e-4
        )


def test_at_the_truth_only_masks_and_expected_error_are_left() -> None:
    batch, model = drawn(make_dataset(2)), network()
    found = at_the_truth(model.match(batch.fixed, batch.moving), batch)
    assert batch.fixed_mask is not None
    assert batch.moving_mask is not None
    masks = F.binary_cross_entropy_with_logits(found.fixed_structure, batch.fixed_mask)
    masks = masks + F.binary_cross_entropy_with_logits(found.moving_structure, batch.moving_mask.clamp(0, 1))
    expected = MASK_WEIGHT * masks + ERROR_WEIGHT * model.expected_sre_mm(found).mean()
    torch.testing.assert_close(guided_loss(model, found, batch), expected, atol=1e-3, rtol=1e-3)


def test_a_case_without_a_moving_mask_is_left_out() -> None:
    dataset = make_dataset(2)
    with_none = dataclasses.replace(dataset, moving_mask=None)
    batch, model = drawn(with_none), network()
    found = model.match(batch.fixed, batch.moving)

    def loss(logits: Tensor) -> Tensor:
        return guided_loss(model.eval(), dataclasses.replace(found, moving_structure=logits), batch).detach()

    # the segmented structure is an error feature too: leave that out
    torch.nn.init.zeros_(next(model.error_head.layers.parameters()))
    torch.testing.assert_close(loss(found.moving_structure), loss(found.moving_structure * -3 + 1))
    known = drawn(dataset)
    assert known.moving_mask is not None
    assert float(known.moving_mask.amin()) >= 0


def test_the_sum_is_weighted_as_documented() -> None:
    batch, model = drawn(make_dataset(3)), network().eval()
    found = model.match(batch.fixed, batch.moving)
    assert batch.fixed_mask is not None
    error = mean_displacement_mm(found.motion, batch.correction, batch.surface_mm)
    rest = MATCH_WEIGHT * match_error_mm(found, batch.correction, batch.fixed_mask).mean() + error.mean()
    masks = guided_loss(model, found, batch) - rest
    expected = ERROR_WEIGHT * (model.expected_sre_mm(found) - error).abs().mean()
    assert float((masks - expected).detach()) > 0  # what is left is the masks' cross-entropy


def test_without_masks_or_matches() -> None:
    batch, model = drawn(make_dataset(2)), network()
    bare = dataclasses.replace(batch, fixed_mask=None, moving_mask=None)
    with pytest.raises(InputError, match="drawn with masks"):
        guided_loss(model, model.match(batch.fixed, batch.moving), bare)
    with pytest.raises(InputError, match="needs matches, which 'feature-reg' has not"):
        TrainingSettings(stage=dataclasses.replace(STAGE, network="feature-reg"), loss="guided", batch=2)
    dataset = make_dataset(2)
    task = RegistrationTask(dataset, dataset, TrainingSettings(stage=STAGE, loss="guided", batch=2))
    with pytest.raises(InputError, match="needs matches, which 'correspondence' has not"):  # a network of one's own
        task.loss(build_network("feature-reg", STAGE.crop_shape), 0)
