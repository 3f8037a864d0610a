"""What the processor offers: devices, bfloat16, and memory that is not given back between steps."""

import ctypes
import platform

import torch

from crossalign.errors import InputError

# glibc's mallopt: keep freed memory instead of returning every large tensor's pages to the kernel. On two CPU cores
# this alone made a training step 2 to 4 times faster (docs/experiments.md).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device; raises InputError where there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"the device is auto, cpu or cuda, got '{name}'")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is available here: use --device cpu or auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Turn `auto` into bfloat16 where the processor computes in it, else float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16", False) else torch.float32


def keep_memory() -> None:
    """Tell glibc to keep freed memory for the rest of this process; does nothing on other systems."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
        libc.mallopt(option, value)
