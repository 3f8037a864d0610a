"""Checkpoints of the papers' authors: their names on our layers."""

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from crossalign.errors import WeightsError
from crossalign.input import check_regular_file, excerpt
from crossalign.models.tensor_files import GIB, FileKind, check_finite, read_tensors
from crossalign.networks.attention_reg import PAPER_SHAPE, AttentionReg
from crossalign.networks.registry import check_crop_shape
from crossalign.types import Shape

LIMIT_BYTES = 2 * GIB
ENTRY_LIMIT = 100_000  # of a zip file: one a tensor
STATE_DICT = FileKind("not a state dict of tensors that can be read safely")
# What torch's two readers raise on a damaged file, besides the unpickler's refusal of code.
UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
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
            raise WeightsError(
                f"{path.name}: holds '{excerpt(name)}', which is no layer of Attention-Reg or Feature-Reg"
            )
    check_crop_shape("attention-reg", input_shape)
    model = AttentionReg(input_shape, attention)
    try:
        model.load_state_dict({_renamed(name, names): value for name, value in state.items()})
    except RuntimeError as error:
        reason = _in_their_words(" ".join(str(error).split()), names)
        raise WeightsError(f"{path.name}: not a checkpoint of this network: {reason[:300]}") from error
    check_finite(model.state_dict(), path, STATE_DICT)
    return model.eval()


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read names and tensors of a `.pth` file, with `weights_only=True`, or of a safetensors file.

    A mapping under `state_dict` is taken out, and a `module.` prefix dropped. Raises WeightsError.
    """
    if "\0" not in str(path) and not os.path.lexists(path):
        raise WeightsError(f"{path}: no such checkpoint")
    check_regular_file(path, WeightsError)
    state = read_tensors(path, STATE_DICT) if path.suffix == ".safetensors" else _unpickled(path)
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not state or not all(_is_entry(*item) for item in state.items()):
        raise WeightsError(f"{path.name}: expected a state dict (names to tensors)")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _unpickled(path: Path) -> object:
    """Read a file of torch.save without running anything in it, and no more than was allowed for."""
    try:
        _check_size(path)
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols; what matters raises
            state: object = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except UNREADABLE as error:
        raise WeightsError(f"{excerpt(path.name)}: {STATE_DICT.refusal}") from error
    return state


def _check_size(path: Path) -> None:
    """Raise WeightsError where the file is too large, or its entries are once they are unpacked."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        size = max(size, sum(entry.file_size for entry in entries))
        if len(entries) > ENTRY_LIMIT:
            raise WeightsError(f"{excerpt(path.name)}: holds {len(entries)} entries, more than {ENTRY_LIMIT}")
    if size > LIMIT_BYTES:
        raise WeightsError(
            f"{excerpt(path.name)}: holds {size / GIB:.1f} GiB, over the {LIMIT_BYTES / GIB:g} GiB of a state dict"
        )


def _is_entry(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


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
