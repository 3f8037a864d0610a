"""Methods by name, as the command line and the evaluation tables spell them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from crossalign.arguments import checked
from crossalign.errors import InputError
from crossalign.models.model import load_model
from crossalign.models.model_file import WEIGHT_SUFFIXES
from crossalign.models.pretrained import shipped_names, shipped_path
from crossalign.registration.iterative.method_settings import (
    MI_BEST,
    MIND_BEST,
    MindSettings,
    MutualInformationSettings,
)
from crossalign.registration.network_registration import NetworkRegistration
from crossalign.registration.problem import Identity, Method

DEFAULT_MODEL = "correspondence-few-shot"  # without a mask
DEFAULT_MASK_MODEL = "correspondence-label"  # with the fixed mask: better on patients that no network has seen


def _mutual_information(run: MutualInformationSettings | None = None, label: str = "mi") -> Method:
    # Here and below imported where it is used: 0.1 s for all three.
    from crossalign.registration.iterative.mutual_information import MutualInformation

    return MutualInformation(run or MutualInformationSettings(), label)


def _mind(run: MindSettings | None = None, label: str = "mind") -> Method:
    from crossalign.registration.iterative.mind import MindSSD

    return MindSSD(run or MindSettings(), label)


def _surface() -> Method:
    from crossalign.registration.iterative.surface import SurfaceRegistration

    return SurfaceRegistration()


# Methods that need no weights: a new one is one file and one line here.
PLAIN_METHODS: Mapping[str, Callable[[], Method]] = {
    "identity": Identity,
    "mi": _mutual_information,
    "mi-best": lambda: _mutual_information(MI_BEST, "mi-best"),
    "mind": _mind,
    "mind-best": lambda: _mind(MIND_BEST, "mind-best"),
    "surface": _surface,
}


def method_names() -> tuple[str, ...]:
    """List every name that `named_method` knows, the plain methods first, then the shipped models."""
    return (*PLAIN_METHODS, *shipped_names())


def default_method_name(fixed_mask: bool = False, moving_mask: bool = False) -> str:
    """Name the method that is used where none is asked for, by the masks that there are.

    `surface` fits two masks; otherwise a shipped model is used, with the fixed mask that which is given it in the MR's
    place, and MI where the package was installed without models.
    """
    if fixed_mask and moving_mask:
        return "surface"
    model = DEFAULT_MASK_MODEL if fixed_mask else DEFAULT_MODEL
    return model if shipped_path(model) else "mi"


def default_reason(fixed_mask: bool, moving_mask: bool) -> str:
    """Say why `default_method_name` names the method that it does."""
    if fixed_mask and moving_mask:
        return "chosen since both masks were given"
    return "the default with the fixed mask" if fixed_mask else "the default, without a mask of the structure"


@checked("name", "device")
def named_method(name: str, device: torch.device | str = "cpu") -> Method:
    """Make a method from its name, or from model files joined with + (`stage1.safetensors+stage2.safetensors`).

    Networks run on `device`. Raises InputError for an unknown name, WeightsError for a file that cannot be used.
    """
    if name in PLAIN_METHODS:
        return PLAIN_METHODS[name]()
    if shipped_path(name) is not None:
        return NetworkRegistration(load_model(name, device), name)
    parts = name.split("+")
    if all(part.endswith(WEIGHT_SUFFIXES) for part in parts):
        return NetworkRegistration(load_model(parts, device), " + ".join(Path(part).stem for part in parts))
    raise InputError(
        f"unknown method '{name}', expected one of {', '.join(method_names())}, "
        "or model files joined with + (stage1.safetensors+stage2.safetensors)"
    )
