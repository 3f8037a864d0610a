"""Softmax attention without scaling whose map is never stored.

On a CPU torch's own kernel is slower in bfloat16 than in float32. There the map is computed here instead, by a few
queries at a time, forwards and again backwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LOG2_E = 1.4426950408889634
SAFE_EXPONENT = 100.0  # sums of so large powers of 2 stay inside the range of float32, which is also bfloat16's
QUERIES = 192  # at a time, by measurement


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(query key') value (b, n, d) of tokens (b, n, c), (b, m, c) and (b, m, d), in the query's type."""
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if on_cpu and not torch.compiler.is_compiling() and _small_logits(query, key):
        return _AttentionByParts.apply(query, key, value)  # type: ignore[no-untyped-call]
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = (part[:, None].float() if on_cpu else part[:, None] for part in (query, key, value))
        gathered = F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]
    return gathered.bfloat16() if on_cpu else gathered


def _small_logits(query: Tensor, key: Tensor) -> bool:
    """Tell whether `_taken_off` keeps every logit in a safe range, so that no running maximum is needed."""
    with torch.no_grad():
        return bool((_largest_logit(query.float(), _centred(key)) <= 2 * SAFE_EXPONENT).all())


class _AttentionByParts(torch.autograd.Function):
    """The attention of bfloat16 tokens; logits are to base 2, sums and gradients are float32."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        key = _centred(key)
        shift = _taken_off(query.float(), key).bfloat16().float()
        queries, keys = _with_number(query, -shift), _with_ones(key * LOG2_E)
        total, gathered = shift.new_zeros(shift.shape), shift.new_zeros((*shift.shape, value.shape[-1]))
        for b, rows, weights, _ in _parts(query, key):
            torch.mm(queries[b, rows], keys[b].T, out=weights).exp2_()
            total[b, rows] = weights.sum(-1)
            gathered[b, rows] = torch.mm(weights, value[b])
        gathered /= total[..., None]
        ctx.save_for_backward(query, key, value, gathered, total.log2_() + shift)
        return gathered.bfloat16()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, gathered, log_total = ctx.saved_tensors
        along = (gradient.float() * gathered).sum(-1)
        queries, gradients = _with_number(query, -log_total), _with_number(gradient, -along)
        keys, values, plain_key = _with_ones(key * LOG2_E), _with_ones(value), key.bfloat16()
        gradient, across = gradient.mT.contiguous(), query.mT.contiguous()
        to_query, to_key, to_value = (along.new_zeros(part.shape) for part in (query, key.mT, value.mT))
        for b, rows, weights, to_logits in _parts(query, key):
            torch.mm(queries[b, rows], keys[b].T, out=weights).exp2_()
            to_value[b] += torch.mm(gradient[b, :, rows], weights)
            torch.mm(gradients[b, rows], values[b].T, out=to_logits).mul_(weights)
            to_query[b, rows] = torch.mm(to_logits, plain_key[b])
            to_key[b] += torch.mm(across[b, :, rows], to_logits)
        to_key -= to_key.mean(dim=2, keepdim=True)  # as the keys were centred
        return to_query.bfloat16(), to_key.mT.bfloat16(), to_value.mT.bfloat16()


def _centred(key: Tensor) -> Tensor:
    """Return float32 keys less their mean, which softmax does not see: logits are smaller and rounded less."""
    return key.float() - key.float().mean(dim=1, keepdim=True)


def _largest_logit(query: Tensor, key: Tensor) -> Tensor:
    """Bound the logits of each query, to base 2 (b, n); with centred keys the largest of them is not below 0."""
    return query.norm(dim=-1) * key.norm(dim=-1).amax(dim=1, keepdim=True) * LOG2_E


def _taken_off(query: Tensor, key: Tensor) -> Tensor:
    """Choose a number for each query (b, n), to base 2, to be taken off its logits: those that matter are then near 0.

    There bfloat16 is fine. Were the keys normally distributed, the mean logit weighted by the softmax would be their
    variance, but no more than the largest of so many logits.
    """
    variance = ((query @ (key.mT @ key / key.shape[1])) * query).sum(-1)
    largest = (2 * math.log(key.shape[1]) * variance).sqrt()
    usual = variance.minimum(largest) * LOG2_E
    return usual.clamp(max=SAFE_EXPONENT).maximum(_largest_logit(query, key) - SAFE_EXPONENT)


def _parts(query: Tensor, key: Tensor) -> Iterator[tuple[int, slice, Tensor, Tensor]]:
    """Iterate over the batch and a few queries at a time, with two matrices of queries x keys to compute in."""
    count = query.shape[1]
    space = query.new_empty(2, min(QUERIES, count), key.shape[1])
    for b in range(query.shape[0]):
        for first in range(0, count, QUERIES):
            weights, to_logits = space[:, : min(QUERIES, count - first)]
            yield b, slice(first, first + QUERIES), weights, to_logits


def _with_number(tokens: Tensor, added: Tensor) -> Tensor:
    """Append a number to each token, as a sum of two of bfloat16: the product with `_with_ones` adds it."""
    coarse = added.bfloat16()
    fine = (added - coarse.float()).bfloat16()
    return torch.cat([tokens, coarse[..., None], fine[..., None]], dim=-1)


def _with_ones(tokens: Tensor) -> Tensor:
    return F.pad(tokens.bfloat16(), (0, 2), value=1.0)
