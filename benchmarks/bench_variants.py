"""What was tried to make networks faster on a CPU and is not used: `torch.compile`, and an ensemble as one network.

    python -m benchmarks.bench_variants [--threads 1] [--runs 5]

`torch.compile` (needs a C++ compiler) is applied to Attention-Reg at the paper's size, for use and for a training step
in float32; the seconds of compiling stand beside. An ensemble is two networks of Attention-Reg on one pair: one after
the other, and as one function over stacked weights (`torch.func`, with plain convolutions: it knows no layouts). Ways
take turns in one process.
"""

from __future__ import annotations

import shutil
import time
import unittest.mock as mock
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from benchmarks import measuring, rows

if TYPE_CHECKING:
    import torch

SHAPE, QUICK = (32, 96, 96), (8, 16, 16)
PLAIN = "as it is"


def main() -> None:
    """Print the rows."""
    command = measuring.parser(__doc__)
    given = command.parse_args()
    measuring.pin_threads(given.threads)
    shape, runs = (QUICK, 1) if given.quick else (SHAPE, given.runs)
    made = [ensemble(shape, runs)]
    if shutil.which("g++") or shutil.which("clang++"):
        made += compiled(shape, runs)
    else:
        made.append(rows.Row("`torch.compile`", "", "not measured: no C++ compiler"))
    for row in made:
        print(f"{row.what}: {row.baseline} -> {row.here}, speed {row.ratio}")
    rows.written(given.rows, made)


def ensemble(shape: tuple[int, int, int], runs: int) -> rows.Row:
    """Run two networks of one architecture one after the other, and stacked."""
    import torch

    from crossalign.networks import AttentionReg

    generator = torch.Generator().manual_seed(0)
    networks: list[torch.nn.Module] = [AttentionReg(shape).eval() for _ in range(2)]
    crops = torch.rand(2, 1, 1, *shape, generator=generator)
    stacked = in_one(networks)
    ways: dict[str, Callable[[], object]] = {
        PLAIN: lambda: [network(*crops) for network in networks],
        "stacked": lambda: stacked(*crops),
    }
    with torch.no_grad():
        together = torch.stack([network(*crops) for network in networks])
        torch.testing.assert_close(stacked(*crops), together, atol=1e-3, rtol=1e-3)
        measured = measuring.in_turns(ways, PLAIN, runs)
    plain, one = (measuring.milliseconds(measured[name]) for name in ways)
    return rows.Row("two networks of Attention-Reg as one, tried: speed", plain, one, measured["stacked"].ratio)


def in_one(networks: list[torch.nn.Module]) -> Callable[..., torch.Tensor]:
    """Return a function that computes all networks at once over stacked weights."""
    import torch

    weights, buffers = torch.func.stack_module_state(networks)

    def run(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor], *crops: torch.Tensor) -> Any:
        return torch.func.functional_call(networks[0], (own, state), crops)

    mapped = torch.func.vmap(run, in_dims=(0, 0, None, None))

    def stacked(*crops: torch.Tensor) -> torch.Tensor:
        with mock.patch("crossalign.networks.convolution._by_slices", return_value=False):  # vmap knows no layouts
            return mapped(weights, buffers, *crops)

    return stacked


def compiled(shape: tuple[int, int, int], runs: int) -> Iterator[rows.Row]:
    """Compile a network for use and for training."""
    import torch

    from crossalign.networks import AttentionReg

    crops = torch.rand(2, 1, 1, *shape, generator=torch.Generator().manual_seed(0))
    for name in ("use", "training"):
        network = AttentionReg(shape).train(name == "training")
        changed = torch.compile(network)
        ways = {PLAIN: way(network, crops, name), "compiled": way(changed, crops, name)}
        began = time.perf_counter()
        ways["compiled"]()
        compiling = time.perf_counter() - began
        measured = measuring.in_turns(ways, PLAIN, runs)
        here = f"{measuring.milliseconds(measured['compiled'])}, after {compiling:.0f} s of compiling"
        plain = measuring.milliseconds(measured[PLAIN])
        yield rows.Row(
            f"`torch.compile` of Attention-Reg for {name}, tried: speed", plain, here, measured["compiled"].ratio
        )


def way(network: Any, crops: torch.Tensor, name: str) -> Callable[[], object]:
    """Return a pass, or a step of training."""
    import torch

    def use() -> object:
        with torch.no_grad():
            return network(*crops)

    def train() -> object:
        network.zero_grad()
        network(*crops).square().mean().backward()
        return None

    return use if name == "use" else train


if __name__ == "__main__":
    main()
