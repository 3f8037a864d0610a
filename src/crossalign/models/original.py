"""Checkpoints of the papers' authors: their names on our layers."""

import os
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crossalign.errors import WeightsError
from crossalign.models.attention_reg import PAPER_SHAPE, AttentionReg
from crossalign.types import Shape

# What torch's two readers raise on a damaged file, besides the unpickler's refusal of code.
UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
BLOCK = "path{n}_block3_NLCross."
PATH_NAMES = {
    "path{n}_block1_conv": "{ours}_extractor.conv1",
    "path{n}_block1_bn": "{ours}_extractor.norm1",
    "path{n}_block2_conv": "{ours}_extractor.conv2",
    "path{n}_block2_bn": "{ours}_extractor.norm2",
    BLOCK + "phi": "{ours}_attention.query",  # theirs: phi is applied to the other map
    BLOCK + "theta": "{ours}_attention.key",
    BLOCK + "g": "{ours}_attention.value",
    BLOCK + "W_z.0": "{ours}_attention.out",
    BLOCK + "W_z.1": "{ours}_attention.norm",
}
HEAD_NAMES = {
    "pathC_bn1": "head.norm1",
    "conv3d_7": "head.conv1",
    "conv3d_8": "head.conv2",
    "conv3d_9": "head.conv3",
    "pathC_bn2": "head.norm2",
    "fc1": "head.linear1",
    "fc2": "head.linear2",
    "fc3": "head.linear3",
}


def load_original_checkpoint(path: str | os.PathLike[str], input_shape: Shape = PAPER_SHAPE) -> AttentionReg:
    """Read a state dict of the authors' Attention-Reg or Feature-Reg code and return our network in eval mode.

    Path 1 is the fixed image (MR or label), path 2 the moving one. `.pth` files are read with `weights_only=True`,
    safetensors as they are; a `module.` prefix is dropped. Whether it has attention blocks decides which network it
    is. The six outputs are those of the original; its *geometry* (rotation about the volume's corner, ultrasound to
    MR) is not ours. Raises WeightsError where names or shapes do not fit.
    """
    path = Path(path)
    state = read_state_dict(path)
    attention = any("NLCross" in name for name in state)
    names = _names(attention)
    for name in state:
        if name.rpartition(".")[0] not in names:
            raise WeightsError(f"{path.name}: holds '{name}', which is no layer of Attention-Reg or Feature-Reg")
    model = AttentionReg(input_shape, attention)
    try:
        model.load_state_dict({_renamed(name, names): value for name, value in state.items()})
    except RuntimeError as error:
        reason = _in_their_words(" ".join(str(error).split()), names)
        raise WeightsError(f"{path.name}: not a checkpoint of this network: {reason[:300]}") from error
    return model.eval()


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read names and tensors of a `.pth` file, with `weights_only=True`, or of a safetensors file.

    A mapping under `state_dict` is taken out, and a `module.` prefix dropped. Raises WeightsError.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint")
    state: object
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols; what matters raises
            if path.suffix == ".safetensors":
                state = load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise WeightsError(f"{path.name}: not a state dict of tensors that can be read safely") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not state or not all(_is_entry(*item) for item in state.items()):
        raise WeightsError(f"{path.name}: expected a state dict (names to tensors)")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _is_entry(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _names(attention: bool) -> dict[str, str]:
    """Name each of their layers to ours."""
    names = dict(HEAD_NAMES)
    for number, ours in ((1, "fixed"), (2, "moving")):
        for theirs, mine in PATH_NAMES.items():
            if attention or "NLCross" not in theirs:
                names[theirs.format(n=number)] = mine.format(ours=ours)
    return names


def _renamed(name: str, names: Mapping[str, str]) -> str:
    layer, _, leaf = name.rpartition(".")
    return f"{names[layer]}.{leaf}"


def _in_their_words(reason: str, names: Mapping[str, str]) -> str:
    """Put their layer names back into torch's message: the reader knows the file, not our network."""
    for theirs, mine in names.items():
        reason = reason.replace(f"{mine}.", f"{theirs}.")
    return reason
