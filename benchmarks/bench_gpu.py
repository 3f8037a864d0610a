"""Attention-Reg on a GPU: a pass, throughput, and how far both are from what the card itself can do.

    python -m benchmarks.bench_gpu [--runs 20] [--device cpu]

A pass of one pair is replayed as a CUDA graph; throughput is that of the best batch in bfloat16; a training epoch of
the paper's stage is a step of the best batch that fits, times its 528 cases and 300 epochs. The card's own bandwidth (a
copy of 1 GiB) and matrix rate (bfloat16, 8192 squared) are measured in the same run. Without a GPU the rows say so;
`--device cpu` runs the same steps small and without the graph, which shows that they run and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks import measuring, rows

if TYPE_CHECKING:
    import torch

SHAPE, QUICK = (32, 96, 96), (8, 16, 16)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
CASES, EPOCHS = 528, 300  # of the paper's stage
NOT_MEASURED = "not measured: no GPU"
PASS_MS, STAGE_MINUTES = 0.3, 5.0  # goals
OPERATIONS = 16e9  # of a pass, by count of multiplications and additions
BYTES = 100e6  # of a pass in bfloat16: maps written and read once each


def main() -> None:
    """Print the rows."""
    import torch

    command = measuring.parser(__doc__)
    command.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    command.set_defaults(runs=20)
    given = command.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        made = [rows.Row(what, "", NOT_MEASURED, goal=goal) for what, goal in WANTED]
    else:
        small = given.quick or given.device == "cpu"
        made = measured(torch.device(given.device), QUICK if small else SHAPE, 2 if small else given.runs)
    for row in made:
        print(f"{row.what}: {row.here} {row.goal}")
    rows.written(given.rows, made)


WANTED = (
    ("Attention-Reg on a GPU, one pair, CUDA graph", f"{PASS_MS} ms or less"),
    ("its throughput at the best batch in bfloat16, to the card's matrix rate", ""),
    ("a pass at batch 1, to what the card's bandwidth allows", ""),
    ("the paper's stage, 528 cases x 300 epochs", f"{STAGE_MINUTES:g} minutes or less"),
)


def measured(device: torch.device, shape: tuple[int, int, int], runs: int) -> list[rows.Row]:
    """Measure everything on one device."""
    import torch

    from crossalign.networks import AttentionReg

    network = AttentionReg(shape).to(device).eval()
    batches = BATCHES if device.type == "cuda" else BATCHES[:2]
    bandwidth, rate = copy_rate(device, runs), matrix_rate(device, runs)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        alone = one_pass(network, device, shape, runs)
        passes = best(batches, lambda batch: seconds(forward(network, device, shape, batch), device, runs) / batch)
    steps = best(batches, lambda batch: seconds(step(network.train(), device, shape, batch), device, runs) / batch)
    minutes = CASES * EPOCHS * steps[1] / 60
    per_second, share = 1 / passes[1], OPERATIONS / passes[1] / rate
    least = BYTES / bandwidth
    values = (
        ("", f"{1000 * alone:.3f} ms", None, 1000 * alone <= PASS_MS),
        (
            f"{rate / 1e12:.3g} Tflop/s",
            f"{per_second:.0f} pairs a second at {passes[0]}, {OPERATIONS / passes[1] / 1e12:.3g} Tflop/s",
            (share,) * 3,
            None,
        ),
        (f"{bandwidth / 1e9:.0f} GB/s", f"{1000 * least:.3f} ms", (alone / least,) * 3, None),
        ("", f"{minutes:.1f} minutes, batches of {steps[0]}", None, minutes <= STAGE_MINUTES),
    )
    return [
        rows.Row(what, base, here, ratio, goal, met)
        for (what, goal), (base, here, ratio, met) in zip(WANTED, values, strict=True)
    ]


def best(batches: tuple[int, ...], cost: Callable[[int], float]) -> tuple[int, float]:
    """Return the batch whose samples take the fewest seconds, of those that fit into memory."""
    import torch

    found: dict[int, float] = {}
    for batch in batches:
        try:
            found[batch] = cost(batch)
        except torch.OutOfMemoryError:
            break
    fastest = min(found, key=lambda batch: found[batch])
    return fastest, found[fastest]


def one_pass(network: torch.nn.Module, device: torch.device, shape: tuple[int, int, int], runs: int) -> float:
    """Return the seconds of a pass of one pair, replayed as a graph on a GPU."""
    import torch

    run = forward(network, device, shape, 1)
    if device.type != "cuda":
        return seconds(run, device, runs)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return seconds(graph.replay, device, runs)


def forward(
    network: torch.nn.Module, device: torch.device, shape: tuple[int, int, int], batch: int
) -> Callable[[], object]:
    """Return a pass of a batch."""
    import torch

    fixed, moving = torch.rand(2, batch, 1, *shape, device=device)
    return lambda: network(fixed, moving)


def step(
    network: torch.nn.Module, device: torch.device, shape: tuple[int, int, int], batch: int
) -> Callable[[], object]:
    """Return a training step of a batch in bfloat16, without the preparation of data."""
    import torch

    fixed, moving = torch.rand(2, batch, 1, *shape, device=device)
    optimizer = torch.optim.Adam(network.parameters())

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = network(fixed, moving).float().square().mean()
        loss.backward()
        optimizer.step()

    return run


def copy_rate(device: torch.device, runs: int) -> float:
    """Return the bytes a second that a copy reads and writes."""
    import torch

    source = torch.ones((1 << 28) if device.type == "cuda" else (1 << 20), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device, runs)


def matrix_rate(device: torch.device, runs: int) -> float:
    """Return the operations a second of a product of large matrices in bfloat16."""
    import torch

    size = 8192 if device.type == "cuda" else 128
    one = torch.ones(size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / seconds(lambda: one @ one, device, runs)


def seconds(run: Callable[[], object], device: torch.device, runs: int) -> float:
    """Return the mean seconds of a run by the clock, after three more."""
    import torch

    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(3):
        run()
    wait()
    began = time.perf_counter()
    for _ in range(runs):
        run()
    wait()
    return (time.perf_counter() - began) / runs


if __name__ == "__main__":
    main()
