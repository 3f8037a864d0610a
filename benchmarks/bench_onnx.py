"""Whole-process time and memory of `register-onnx` beside `register`, and what quantised graphs change.

    python -m benchmarks.bench_onnx [--runs 7] [--networks net-1.onnx net-2.onnx]
                                    [--manifest pairs.csv --orientation-correction 270]

Without --networks the default model for a masked pair is exported first (minutes). All take turns on one simulated
96^3 pair, on one thread: median wall and processor seconds of the whole process, peak memory. With a manifest the mean
SRE over its validation cases, each from one initial transform 10 mm off, stands beside.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks import measuring, rows

if TYPE_CHECKING:
    from crossalign.models.run_settings import OrientationCorrection
    from crossalign.onnx_runtime import ExportedModel, Motion, Pair
    from crossalign.onnx_runtime.motions import Array

GRAPHS = ("fp32", "int8 dynamic", "int8 static", "fp16")
CALIBRATION_PAIRS = 16


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="counted runs of each, after one warm-up")
    parser.add_argument("--networks", type=Path, nargs="+", default=[], help="exported networks")
    parser.add_argument("--manifest", type=Path, help="cases with a known answer")
    parser.add_argument("--orientation-correction", type=int, default=0, help="of the manifest's headers, degrees")
    measuring.with_rows(parser)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.prepare:
        prepare(given.prepare, given)
        return
    with tempfile.TemporaryDirectory() as name:
        words = [sys.executable, "-m", "benchmarks.bench_onnx", *sys.argv[1:], "--prepare", name]
        print(subprocess.run(words, check=True, capture_output=True, text=True).stdout, end="")
        rows.written(given.rows, [row(measure(Path(name), 1 if given.quick else given.runs))])


def prepare(folder: Path, given: argparse.Namespace) -> None:
    """Write the pair, the networks and their quantised forms, and print the SRE of each; in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.bench_register", "--write-pair", str(folder)]
    model = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    (folder / "model").write_text(model)
    networks = list(given.networks) or exported(model, folder)
    for number, network in enumerate(networks, start=1):
        quantise(network, folder, number)
    if given.manifest is not None:
        print(f"{'graph':16}{'n':>4}{'mean SRE mm':>13}{'sd':>7}{'from fp32':>11}{'network ms':>12}")
        for line in accuracies(folder, given.manifest, given.orientation_correction):
            print(line)


def exported(model: str, folder: Path) -> list[Path]:
    """Export a model's networks."""
    from crossalign.export import ExportChoice, export_model

    return [one.path for one in export_model(ExportChoice(model), folder / "net.onnx")]


def quantise(network: Path, folder: Path, number: int) -> None:
    """Write the forms of a network: as it is, 8-bit weights, 8-bit weights and activations, and half precision."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from onnxruntime.transformers.float16 import convert_float_to_float16

    places = {name: place(folder, name, number) for name in GRAPHS}
    plain = onnx.load(network)
    onnx.save(plain, places["fp32"])
    prepared = folder / f"prepared-{number}.onnx"
    quant_pre_process(str(network), str(prepared), skip_symbolic_shape=True)
    # The closed-form fit stays as it is: it needs double precision.
    layers = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
    quantize_dynamic(prepared, places["int8 dynamic"], op_types_to_quantize=["Gemm"], weight_type=QuantType.QInt8)
    quantize_static(
        prepared,
        places["int8 static"],
        Crops(folder),
        quant_format=QuantFormat.QDQ,
        nodes_to_quantize=layers,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    kept = {node.op_type for node in plain.graph.node} - {"Conv", "Relu", "MaxPool"}
    half = convert_float_to_float16(plain, keep_io_types=True, op_block_list=sorted(kept))
    onnx.save(half, places["fp16"])
    for name in GRAPHS[1:]:  # what the file says of itself
        quantised = onnx.load(places[name])
        del quantised.metadata_props[:]
        quantised.metadata_props.extend(plain.metadata_props)
        onnx.save(quantised, places[name])


class Crops:
    """Crops of simulated pairs, by which activations are scaled."""

    def __init__(self, folder: Path) -> None:
        import numpy as np
        import torch

        from crossalign.simulation import simulate_pairs

        label = "label" in (folder / "model").read_text()
        pairs = simulate_pairs(CALIBRATION_PAIRS, torch.Generator().manual_seed(1), shape=(32, 32, 32), spacing_mm=2.5)
        fixed = (pairs.fixed_mask if label else pairs.fixed).float().numpy()
        none = np.eye(3, dtype=np.float32)[None]
        self.rows = iter(
            {"fixed": a[None], "moving": b[None], "attraction_mm2": none}
            for a, b in zip(fixed, pairs.moving.float().numpy(), strict=True)
        )

    def get_next(self) -> dict[str, object] | None:
        """Return the next inputs; None after the last."""
        return next(self.rows, None)


def place(folder: Path, graph: str, number: int) -> Path:
    """Name the file of a form of a network."""
    return folder / f"{graph.replace(' ', '-')}-{number}.onnx"


def files_of(folder: Path, graph: str) -> list[Path]:
    """List the files of a form of the model."""
    return sorted(folder.glob(f"{graph.replace(' ', '-')}-*.onnx"))


def accuracies(folder: Path, manifest: Path, orientation_deg: int) -> list[str]:
    """Register the validation cases by each form; return a line for each."""
    import numpy as np

    from crossalign.onnx_runtime import load_exported
    from crossalign.onnx_runtime.motions import mean_displacement_mm

    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    cases = [case(manifest.parent, row, orientation_deg) for row in rows]
    correction = cast("OrientationCorrection", orientation_deg)
    errors: dict[str, list[float]] = {"initial": [mean_displacement_mm(p.initial, t, s) for p, t, s in cases]}
    moved, milliseconds, found = {}, {}, {}
    name = (folder / "model").read_text()
    files = [[manifest.parent / row[part] for part in ("fixed", "moving", "fixed_mask")] for row in rows]
    with_torch = [
        registered_by_torch(name, paths, pair.initial, orientation_deg)
        for paths, (pair, _, _) in zip(files, cases, strict=True)
    ]
    for graph in GRAPHS:
        model = load_exported(files_of(folder, graph), threads=1)
        model = replace(model, run=replace(model.run, orientation_correction=correction))
        found[graph] = [registered(pair, model) for pair, _, _ in cases]
        errors[graph] = [mean_displacement_mm(r, t, s) for r, (_, t, s) in zip(found[graph], cases, strict=True)]
        apart = [
            mean_displacement_mm(r, f, s) for r, f, (_, _, s) in zip(found[graph], found["fp32"], cases, strict=True)
        ]
        moved[graph], milliseconds[graph] = statistics.mean(apart), pass_ms(model)
    errors["torch"] = [mean_displacement_mm(r, t, s) for r, (_, t, s) in zip(with_torch, cases, strict=True)]
    apart = [mean_displacement_mm(r, f, s) for r, f, (_, _, s) in zip(with_torch, found["fp32"], cases, strict=True)]
    moved["torch"], milliseconds["torch"] = max(apart), torch_ms(name)
    return [
        f"{name:16}{len(values):4}{np.mean(values):13.3f}{np.std(values, ddof=1):7.3f}"
        + (f"{moved[name]:11.3f}{milliseconds[name]:12.1f}" if name in moved else "")
        for name, values in errors.items()
    ]


def case(folder: Path, row: dict[str, str], orientation_deg: int) -> tuple[Pair, Motion, Array]:
    """Read a case: the pair 10 mm off, the true transform, and points on the structure's surface."""
    from crossalign.onnx_runtime import Pair, read_mask, read_scan
    from crossalign.onnx_runtime.motions import perturbed
    from crossalign.onnx_runtime.structure import centroid_mm, surface_points
    from crossalign.onnx_runtime.transform_files import read_motion

    fixed, moving = read_scan(folder / row["fixed"]), read_scan(folder / row["moving"])
    mask, truth = read_mask(folder / row["fixed_mask"], fixed), read_motion(folder / row["reference"])
    points = surface_points(mask)
    initial = perturbed(truth, points, centroid_mm(mask), 10.0)[1]
    return Pair(fixed, moving, initial, mask, orientation_deg), truth, points


def registered(pair: Pair, model: ExportedModel) -> Motion:
    """Return the transform that a model finds."""
    from crossalign.onnx_runtime import register_exported

    return register_exported(pair, model).fixed_to_moving


def registered_by_torch(name: str, paths: list[Path], initial: Motion, orientation_deg: int) -> Motion:
    """Return the transform that the model finds in torch."""
    import torch

    from crossalign.geometry import Rigid
    from crossalign.images import read_image, read_mask
    from crossalign.models import load_model
    from crossalign.onnx_runtime import Motion
    from crossalign.registration import NetworkRegistration, register

    model, correction = load_model(name), cast("OrientationCorrection", orientation_deg)
    method = NetworkRegistration(replace(model, run=replace(model.run, orientation_correction=correction)))
    begin = Rigid(torch.from_numpy(initial.rotation), torch.from_numpy(initial.translation_mm))
    result = register(read_image(paths[0]), read_image(paths[1]), method, begin, read_mask(paths[2])).fixed_to_moving
    return Motion(result.rotation.numpy(), result.translation_mm.numpy())


def pass_ms(model: ExportedModel) -> float:
    """Return the median processor milliseconds of one network on one pair of crops."""
    import numpy as np

    network = model.networks[0]
    crops = np.random.default_rng(0).random((2, *network.settings.crop_shape), dtype=np.float32)
    return median_ms(lambda: network.answer(*crops))


def torch_ms(name: str) -> float:
    """Return the same of the network in torch."""
    import torch

    from crossalign.models import load_model

    torch.set_num_threads(1)
    stage = load_model(name).stages[0]
    network: Any = stage.network
    crops = torch.rand(2, 1, 1, *stage.settings.crop_shape)
    with torch.no_grad():
        return median_ms(lambda: network.forward_with_error(*crops))


def median_ms(work: Callable[[], object]) -> float:
    """Return the median processor milliseconds of 20 calls, after three more."""
    seconds = []
    for _ in range(23):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return 1000 * statistics.median(seconds[3:])


def row(measured: dict[str, list[tuple[float, float, float]]]) -> rows.Row:
    """Make the row of registering without torch, beside with it: processor seconds."""
    with_torch, without = (measured[name] for name in ("register (torch)", "register-onnx fp32"))
    ratio = measuring.spread([one[1] / other[1] for one, other in zip(without, with_torch, strict=True)])
    base, here = (
        f"{statistics.median(one[1] for one in values):.2f} processor s, {max(one[2] for one in values):.0f} MiB"
        for values in (with_torch, without)
    )
    return rows.Row("`crossalign register-onnx`, whole process, to `register`", base, here, ratio)


def measure(folder: Path, runs: int) -> dict[str, list[tuple[float, float, float]]]:
    """Run `register` and `register-onnx` with each form in turn, print the medians, and return all."""
    pair = [str(folder / "mr.nii.gz"), str(folder / "us.nii.gz"), "--initial", str(folder / "initial.tfm")]
    pair += ["--fixed-mask", str(folder / "gland.nii.gz"), "--output-transform", str(folder / "out.tfm"), "--overwrite"]
    model = (folder / "model").read_text()
    commands = {"register (torch)": ["register", *pair, "--method", model, "--recognition", "off"]}
    for graph in GRAPHS:
        networks = [word for path in files_of(folder, graph) for word in ("--network", str(path))]
        commands[f"register-onnx {graph}"] = ["register-onnx", *pair, *networks, "--threads", "1"]
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, words in commands.items():
            value = measuring.process_cost(["-m", "crossalign", *words], threads=1)
            if number:
                measured[name].append(value)
    print(f"{model}, one thread, {runs} runs each, whole process, medians")
    print(f"{'command':28}{'wall s':>8}{'CPU s':>8}{'peak MiB':>10}")
    for name, values in measured.items():
        wall, processor, peak = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:28}{wall:8.2f}{processor:8.2f}{peak:10.0f}")
    return measured


if __name__ == "__main__":
    main()
