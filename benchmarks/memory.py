"""How much memory `crossalign register` takes, by method: peak resident memory of the whole process.

    .venv/bin/python -m benchmarks.memory --size 256 --method correspondence-image,mi --option=--moved

Each run is a process of its own on a pair of equal scans (int16, compressed NIfTI) with a mask of a quarter of the
volume. From its peak that of the same run on 32 x 32 x 32 voxels is taken off: Python, its libraries, the weights.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FIELD_MM = 128.0
SMALL = 32
EXTRA = {"--moved": "moved.nii.gz", "--report": "report.html"}


def make_pair(folder: Path, size: int) -> None:
    """Write fixed.nii.gz, moving.nii.gz and mask.nii.gz of size^3 voxels: an ellipsoid with texture."""
    import numpy as np
    import SimpleITK as sitk

    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) / (size / 2)
    noise = np.random.default_rng(0)
    volumes = {name: np.zeros((size,) * 3, np.int16) for name in ("fixed", "moving")}
    mask = np.zeros((size,) * 3, np.uint8)
    for z, height in enumerate(axis):
        square = height**2 / 0.64 + axis[:, None] ** 2 / 0.81 + axis**2 / 0.49
        mask[z] = square < 0.9
        for sign, volume in zip((1, -1), volumes.values(), strict=True):
            texture = 100 + sign * 60 * np.cos(9 * square) + noise.integers(0, 20, square.shape)
            volume[z] = np.where(square < 1, texture, 0)
    for name, values in (*volumes.items(), ("mask", mask)):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing([FIELD_MM / size] * 3)
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"), useCompression=True, compressionLevel=1)


def written(folder: Path, size: int) -> None:
    """Let another process write a pair: a child's peak memory starts from its parent's, so this one stays small."""
    subprocess.run([sys.executable, __file__, "--write-pair", str(folder), str(size)], check=True)


def peak_bytes(folder: Path, method: str, options: list[str]) -> int:
    """Register the pair in a folder in a process of its own and return its peak resident memory."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "crossalign", "register", str(folder / "fixed.nii.gz")]
        command += [str(folder / "moving.nii.gz"), "--initial", "center", "--method", method]
        command += ["--output-transform", f"{out}/found.tfm", "--fixed-mask", str(folder / "mask.nii.gz")]
        for option in options:
            command += [option, f"{out}/{EXTRA[option]}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        message = process.stderr.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{method}: {message}")
        return usage.ru_maxrss * 1024


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="128,256", help="voxels along each axis, separated by commas")
    parser.add_argument("--method", default="correspondence-image,mi,mi-best,mind,identity")
    parser.add_argument("--option", action="append", default=[], choices=sorted(EXTRA), help="also write this")
    parser.add_argument("--write-pair", nargs=2, help=argparse.SUPPRESS)
    request = parser.parse_args()
    if request.write_pair:
        make_pair(Path(request.write_pair[0]), int(request.write_pair[1]))
        return
    print("| method | voxels of each scan | peak, MB | without the scans, MB | bytes a voxel of both | of one |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        small.mkdir()
        written(small, SMALL)
        for size in map(int, request.size.split(",")):
            written(Path(folder), size)
            for method in request.method.split(","):
                base, peak = (peak_bytes(place, method, request.option) for place in (small, Path(folder)))
                each = (peak - base) / size**3
                name = " ".join((method, *request.option))
                print(
                    f"| {name} | {size}^3 | {peak / 1e6:.0f} | {base / 1e6:.0f} | {each / 2:.1f} | {each:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
