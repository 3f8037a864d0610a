"""Networks by name: adding one is a line here."""

from collections.abc import Callable, Sequence

from torch import nn

from crossalign.errors import InputError
from crossalign.networks.attention_reg import PAPER_SHAPE, AttentionReg
from crossalign.networks.correspondence import CorrespondenceReg
from crossalign.networks.dvnet import DVNetStandIn
from crossalign.networks.msreg import MSReg
from crossalign.networks.tokens import TokenRegression
from crossalign.types import Shape

Builder = Callable[[Shape, float], nn.Module]  # from the crop's shape (z, y, x) and its spacing in mm

BUILDERS: dict[str, Builder] = {
    "attention-reg": lambda shape, _: AttentionReg(shape, attention=True),
    "feature-reg": lambda shape, _: AttentionReg(shape, attention=False),
    "correspondence": CorrespondenceReg,
    "correspondence-fc": TokenRegression,  # ablations: another head,
    "correspondence-plain": lambda shape, spacing_mm: CorrespondenceReg(shape, spacing_mm, rounds=0),  # no attention,
    "correspondence-short": lambda shape, spacing_mm: CorrespondenceReg(shape, spacing_mm, rounds=1),  # one round,
    "correspondence-deep": lambda shape, spacing_mm: CorrespondenceReg(shape, spacing_mm, rounds=4),  # or four
    "msreg": lambda shape, _: MSReg(shape),
    "msreg-published": lambda shape, _: MSReg(shape, unused_layers=True),
    "dvnet": lambda shape, _: DVNetStandIn(shape),
}
LEAST_VOXELS, MOST_VOXELS = 4, 2**24  # along an axis, and in all: of 256^3
# Networks that need more than that along each axis: how many, and of what they need multiples.
CROPS: dict[str, tuple[int, int]] = {name: (8, 4) for name in BUILDERS if name.startswith("correspondence")}
CROPS |= {"msreg": (8, 1), "msreg-published": (8, 1), "dvnet": (8, 1)}
# Those that match no places: the guided loss is not for them.
WITHOUT_MATCHES = ("attention-reg", "feature-reg", "correspondence-fc", "msreg", "msreg-published", "dvnet")
STAND_INS = ("dvnet",)  # known by name and parameter count alone: the architecture is ours


def network_names() -> tuple[str, ...]:
    """Names that `build_network` takes."""
    return tuple(BUILDERS)


def names_in_words() -> str:
    """List the networks for a reader; a stand-in is called one."""
    return ", ".join(f"{name} (a stand-in)" if name in STAND_INS else name for name in BUILDERS)


def check_crop_shape(name: str, shape: Sequence[int]) -> None:
    """Raise InputError where a network of this name cannot see crops (z, y, x) of this shape."""
    least, multiple = CROPS.get(name, (LEAST_VOXELS, 1))
    got = f"got {','.join(map(str, shape))}"
    if len(shape) != 3 or min(shape) < least or any(size % multiple for size in shape):
        of = "" if multiple == 1 else f", each a multiple of {multiple}"
        raise InputError(
            f"the crop of '{name}' needs {least} voxels or more on each of three axes{of}, {got}: "
            f"its smallest crop is {least},{least},{least}"
        )
    if shape[0] * shape[1] * shape[2] > MOST_VOXELS:
        raise InputError(f"the crop may have {MOST_VOXELS} voxels (256,256,256) at most, {got}: take a coarser spacing")


def build_network(name: str, input_shape: Shape = PAPER_SHAPE, spacing_mm: float = 2.5) -> nn.Module:
    """Make an untrained network: `model(fixed, moving)` takes two (b, 1, z, y, x) and returns (b, 6), mm and degrees.

    `input_shape` is the crop's (z, y, x), `spacing_mm` its spacing, which only networks that match places look at.
    The weights are drawn from torch's global generator. Raises InputError for an unknown name.
    """
    if name not in BUILDERS:
        raise InputError(f"no network is called '{name}': choose one of {names_in_words()}")
    return BUILDERS[name](input_shape, spacing_mm)


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
