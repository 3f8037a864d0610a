"""Networks by name: adding one is a line here."""

from collections.abc import Callable
from functools import partial

from torch import nn

from crossalign.errors import InputError
from crossalign.models.attention_reg import PAPER_SHAPE, AttentionReg
from crossalign.types import Shape

Builder = Callable[[Shape], nn.Module]

BUILDERS: dict[str, Builder] = {
    "attention-reg": partial(AttentionReg, attention=True),
    "feature-reg": partial(AttentionReg, attention=False),
}


def model_names() -> tuple[str, ...]:
    """Names that `build_model` takes."""
    return tuple(BUILDERS)


def build_model(name: str, input_shape: Shape = PAPER_SHAPE) -> nn.Module:
    """Make an untrained network: `model(fixed, moving)` takes two (b, 1, z, y, x) and returns (b, 6), mm and degrees.

    The weights are drawn from torch's global generator. Raises InputError for an unknown name.
    """
    if name not in BUILDERS:
        raise InputError(f"no network is called '{name}': choose one of {', '.join(BUILDERS)}")
    return BUILDERS[name](input_shape)


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
