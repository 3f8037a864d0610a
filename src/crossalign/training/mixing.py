"""Banks made of other banks: several as one, a bank's mirror image, and a bank turned about z."""

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import quarter_turn
from crossalign.training.bank import Bank

AXES = "xyz"


def joined(banks: list[Bank]) -> Bank:
    """Put the cases of several banks into one, in order; a bank that is named twice counts twice.

    Raises InputError where their canvases differ, or where only some of them hold moving masks.
    """
    if not banks:
        raise InputError("there are no banks to join")
    first = banks[0]
    for bank in banks[1:]:
        same = bank.fixed.shape[1:] == first.fixed.shape[1:] and bank.moving.shape[1:] == first.moving.shape[1:]
        if not same or not torch.equal(bank.spacing_mm, first.spacing_mm):
            raise InputError("the banks to join were prepared for other crops: prepare them for one stage")
        if (bank.moving_mask is None) != (first.moving_mask is None):
            raise InputError("some banks to join hold masks of the moving images and some do not")
    tensors: dict[str, Tensor] = {}
    for item in fields(Bank):
        values = [getattr(bank, item.name) for bank in banks]
        if values[0] is not None:
            tensors[item.name] = values[0] if item.name == "spacing_mm" else torch.cat(values)
    return Bank(**tensors)


def mirrored(bank: Bank, axis: str) -> Bank:
    """Return every case as its mirror image along the axis x, y or z of both spaces (LPS): x swaps left and right."""
    number = AXES.index(axis)
    sign = torch.ones(3, device=bank.center_mm.device)
    sign[number] = -1.0

    def flipped(volumes: Tensor) -> Tensor:
        return volumes.flip(4 - number)

    def origin(origins: Tensor, volumes: Tensor) -> Tensor:
        last = (volumes.shape[4 - number] - 1) * bank.spacing_mm
        return torch.where(sign < 0, -(origins + last), origins)

    return replace(
        _with_volumes(bank, flipped),
        fixed_origin_mm=origin(bank.fixed_origin_mm, bank.fixed),
        moving_origin_mm=origin(bank.moving_origin_mm, bank.moving),
        center_mm=bank.center_mm * sign,
        rotation=sign[:, None] * bank.rotation * sign,
        translation_mm=bank.translation_mm * sign,
        surface_mm=bank.surface_mm * sign,
    )


def turned(bank: Bank, quarters: int) -> Bank:
    """Return every case turned as a whole, both spaces alike, by so many quarter turns about z (from x to y).

    For scans whose headers name the axes wrongly: 3 quarters bring what lies at -x (where the headers say the patient's
    right is) to +y, the patient's back.
    """
    for _ in range(quarters % 4):
        bank = _quarter_turned(bank)
    return bank


def _quarter_turned(bank: Bank) -> Bank:
    turn = quarter_turn(1).to(bank.center_mm)

    def volume(volumes: Tensor) -> Tensor:
        return volumes.transpose(-1, -2).flip(-1)

    def origin(origins: Tensor, volumes: Tensor) -> Tensor:
        last = (volumes.shape[-2] - 1) * bank.spacing_mm
        x, y, z = origins.unbind(-1)
        return torch.stack((-(y + last), x, z), -1)

    return replace(
        _with_volumes(bank, volume),
        fixed_origin_mm=origin(bank.fixed_origin_mm, bank.fixed),
        moving_origin_mm=origin(bank.moving_origin_mm, bank.moving),
        center_mm=bank.center_mm @ turn.mT,
        rotation=turn @ bank.rotation @ turn.mT,
        translation_mm=bank.translation_mm @ turn.mT,
        surface_mm=bank.surface_mm @ turn.mT,
    )


def _with_volumes(bank: Bank, change: Callable[[Tensor], Tensor]) -> Bank:
    return replace(
        bank,
        fixed=change(bank.fixed),
        fixed_mask=change(bank.fixed_mask),
        moving=change(bank.moving),
        moving_mask=None if bank.moving_mask is None else change(bank.moving_mask),
    )
