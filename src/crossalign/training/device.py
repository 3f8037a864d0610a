"""What the processor offers: layouts, bfloat16, and memory that is not given back between steps."""

import ctypes
import platform
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from crossalign.errors import InputWarning

# glibc's mallopt: keep freed memory instead of returning every large tensor's pages to the kernel. On two CPU cores
# this alone made a training step 2 to 4 times faster (docs/lab/experiments.md).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


T = TypeVar("T", bound=torch.Tensor | nn.Module)


def channels_last(value: T) -> T:
    """Lay a volume or a network's weights out with the channels last, as convolutions are fastest."""
    form = torch.channels_last_3d
    if isinstance(value, torch.Tensor):
        return value.contiguous(memory_format=form)  # type: ignore[return-value]
    return value.to(memory_format=form)  # type: ignore[call-overload] # torch's hints lack it


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Compute in this precision; float32 switches it off."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Turn `auto` into bfloat16 where the processor computes in it, else float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16", False) else torch.float32


def settled_precision(name: str, device: torch.device, model: nn.Module, run: Callable[[], object]) -> torch.dtype:
    """`choose_precision`, but float32 where bfloat16 would train a network on wrong gradients.

    On the CPU oneDNN's bfloat16 gradient of a 3-D convolution's weights is wrong, or NaN, where the map is narrower
    than the kernel; `run` runs the model once, for the sizes of its maps. Warns where bfloat16 was asked for by name.
    """
    precision = choose_precision(name, device)
    if device.type != "cpu" or precision == torch.float32:
        return precision
    layer = narrow_map(model, run)
    if layer is None:
        return precision
    if name != "auto":
        warnings.warn(
            f"bfloat16 has no right gradients on this processor for {layer}: training in float32 instead; "
            "take a larger crop for bfloat16",
            InputWarning,
            stacklevel=2,
        )
    return torch.float32


@torch.no_grad()
def narrow_map(model: nn.Module, run: Callable[[], object]) -> str | None:
    """Name the first 3-D convolution whose kernel is wider than the map that it gets when `run` runs the model."""
    found: list[str] = []

    def watch(name: str, layer: nn.Conv3d) -> Callable[[nn.Module, Any], None]:
        def hook(_layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if not found:
                size = tuple(inputs[0].shape[2:])
                if _is_narrow(size, layer.kernel_size, layer.stride):
                    found.append(f"the layer '{name}' (kernel {layer.kernel_size} on a map of {size})")

        return hook

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv3d)]
    hooks = [layer.register_forward_pre_hook(watch(name, layer)) for name, layer in layers]
    was_training = model.training
    try:
        model.eval()
        run()
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _is_narrow(size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Measured: kernels in a plane are wrong only where a stride skips over an axis of one voxel."""
    axes = zip(size, kernel, stride, strict=True)
    if min(kernel) == 1:
        return any(width > 1 and step > 1 and length == 1 for length, width, step in axes)
    return any(length < width for length, width, _ in axes)


def keep_memory() -> None:
    """Tell glibc to keep freed memory for the rest of this process; does nothing on other systems."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
        libc.mallopt(option, value)
