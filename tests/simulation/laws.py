"""Laws of every simulation: the same seed gives the same pairs, and torch's own random state is left alone."""

from collections.abc import Callable

import torch

from crossalign.simulation import SimulatedPairs

TENSORS = ("fixed", "moving", "fixed_mask", "moving_mask", "surface_mm", "residual_mm")
Make = Callable[[int, int], SimulatedPairs]


def check_that_the_seed_decides(make: Make) -> None:
    """Ask for three pairs with one seed twice, and with another."""
    first, again, other = make(3, 5), make(3, 5), make(4, 5)
    for name in TENSORS:
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert torch.equal(first.fixed_to_moving.matrix(), again.fixed_to_moving.matrix())


def check_that_global_random_state_is_left_alone(make: Make) -> None:
    """See that it is neither read nor changed."""
    torch.manual_seed(1)
    first, state = make(5, 1), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first.moving, make(5, 1).moving)
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
