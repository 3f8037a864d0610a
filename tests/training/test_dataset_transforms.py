"""Datasets made of datasets."""

from dataclasses import replace

import pytest
import torch
from tests.training.toys import make_dataset

from crossalign.errors import InputError
from crossalign.geometry import quarter_turn
from crossalign.training.dataset import joined, rotated


def test_joined_keeps_order_and_counts_twice() -> None:
    one, two = make_dataset(2, 1), make_dataset(1, 2)
    both = joined([one, two, one])
    assert len(both) == 5
    torch.testing.assert_close(both.center_mm, torch.cat((one.center_mm, two.center_mm, one.center_mm)))
    assert both.moving_mask is not None
    assert joined([replace(one, moving_mask=None)] * 2).moving_mask is None


def test_joined_refuses_what_does_not_go_together() -> None:
    dataset = make_dataset(1)
    others = (replace(dataset, moving_mask=None), replace(dataset, spacing_mm=torch.tensor(2.0)))
    for other, words in zip(others, ("some do not", "other crops"), strict=True):
        with pytest.raises(InputError, match=words):
            joined([dataset, other])
    with pytest.raises(InputError, match="no datasets"):
        joined([])


@pytest.mark.parametrize("quarters", [1, 2, 3, 5])
def test_a_rotated_dataset_shows_the_same_at_the_rotated_place(quarters: int) -> None:
    dataset = make_dataset(2, 3)
    image, turn = rotated(dataset, quarters), quarter_turn(quarters).float()
    index = torch.arange(2)
    points = dataset.surface_mm[:, :27].reshape(2, 3, 3, 3, 3)
    torch.testing.assert_close(dataset.fixed_at(index, points, False), image.fixed_at(index, points @ turn.mT, False))
    there = dataset.reference(index).apply(points.flatten(1, 3)).reshape(points.shape)
    torch.testing.assert_close(dataset.moving_at(index, there), image.moving_at(index, there @ turn.mT))
    torch.testing.assert_close(dataset.moving_mask_at(index, there), image.moving_mask_at(index, there @ turn.mT))
    torch.testing.assert_close(
        image.reference(index).apply(image.surface_mm),
        dataset.reference(index).apply(dataset.surface_mm) @ turn.mT,
        atol=1e-4,
        rtol=1e-4,
    )


def test_four_quarter_turns_are_none() -> None:
    dataset = make_dataset(1, 5)
    again = rotated(rotated(dataset, 3), 1)
    torch.testing.assert_close(again.moving, dataset.moving)
    torch.testing.assert_close(again.moving_origin_mm, dataset.moving_origin_mm)
    assert rotated(dataset, 4) is dataset
