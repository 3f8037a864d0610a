"""What each step of a run takes: its cases, its seed and its learning rate."""

import math

import torch

# torch's CPU generator uses a seed's lowest 32 bits alone: seeds are scattered over those, steps count up from there.
SEED_FACTOR = 0x9E3779B1
SEED_RANGE = 2**32
WARM_UP = 0.05


def pick_cases(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Pick the step's cases: each epoch visits all of them in a fresh order, batches run across its end."""
    positions = range(step * batch, (step + 1) * batch)
    orders: dict[int, list[int]] = {}
    for epoch in {position // count for position in positions}:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        orders[epoch] = torch.randperm(count, generator=generator).tolist()
    return [orders[position // count][position % count] for position in positions]


def cosine_rate(highest: float, first: float, done: float) -> float:
    """Rise linearly over the first 5 % of the steps, from the fraction `first`, then fall as a cosine to 1 %."""
    if done < WARM_UP:
        return highest * max(done, first) / WARM_UP
    return highest * (0.01 + 0.99 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2)


def step_seed(seed: int, step: int = 0) -> int:
    """Give each step of each run its own seed within 32 bits; validation takes step 0's, on other cases."""
    return (seed * SEED_FACTOR + step) % SEED_RANGE
