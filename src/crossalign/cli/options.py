"""What several commands share: options as values, and results as printed lines."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from crossalign.errors import InputError, InputWarning, OutputError
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap, read_transform
from crossalign.registration import center_start, mask_center_start

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Outcome:
    """What a command has to say: lines for standard output, warnings for standard error."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def pick_device(name: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device; auto takes the GPU where there is one. Raises InputError."""
    if name not in DEVICES:
        raise InputError(f"unknown device '{name}', expected one of {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here: use --device auto or cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def read_start(initial: str, fixed: Image, moving: Image, fixed_mask: LabelMap | None) -> Rigid:
    """Make the start, fixed to moving, from `center`, `mask-center` or the name of a transform file."""
    if initial == "center":
        return center_start(fixed, moving)
    if initial == "mask-center":
        if fixed_mask is None:
            raise InputError("--initial mask-center needs --fixed-mask: name the mask, or start from 'center'")
        return mask_center_start(fixed_mask, moving)
    return read_transform(initial)


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise OutputError where an output is an input of the same run, or two outputs are one file."""
    taken = {path.resolve() for path in inputs}
    seen: set[Path] = set()
    for path in outputs:
        if path.resolve() in taken:
            raise OutputError(f"{path}: is an input of this run: write to another file")
        if path.resolve() in seen:
            raise OutputError(f"{path}: is named for two outputs: give each its own file")
        seen.add(path.resolve())


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what the readers warn of (InputWarning) in a list, each text once, in place of issuing it.

    For commands that put the warnings of their inputs into the result: reports and JSON files then carry them.
    """
    told: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        issue = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *place: object) -> None:
            if not issubclass(category, InputWarning):
                issue(message, category, *place)  # type: ignore[arg-type]
            elif str(message) not in told:
                told.append(str(message))

        warnings.showwarning = keep  # type: ignore[assignment]
        yield told
