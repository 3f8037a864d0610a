"""The wheel in a clean environment, without constraints: it installs, is small, and runs the demo; and without torch.

Takes minutes and a network, so that only `make check-wheel` asks for it; tests/cli/test_lean_install.py and
test_register_onnx.py beside it stand for it in every other run.
"""

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest
import SimpleITK as sitk

REPOSITORY = Path(__file__).parents[1]
TORCH = os.environ.get("CROSSALIGN_TORCH", "")  # what pip is asked for first: a build of torch for CPUs
MOST_BYTES = 1.6e9  # with such a build

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("CROSSALIGN_CHECK_WHEEL") != "1", reason="downloads for minutes: run by 'make check-wheel'"
    ),
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]


def run(*words: object, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder: Path, *steps: Sequence[object]) -> Path:
    """The bin folder of a new environment after pip's steps."""
    venv.create(folder, with_pip=True)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    for words in steps:
        run(*pip, *words, folder=folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, REPOSITORY, folder=folder)
    (built,) = folder.glob("crossalign-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The bin folder of a new environment with the wheel and what it brings."""
    return environment(wheel.parent / "clean", *([TORCH.split()] if TORCH else []), [wheel])


def test_the_demo_runs(installed: Path, tmp_path: Path) -> None:
    run(installed / "crossalign", "demo", folder=tmp_path)
    made = {path.name for path in (tmp_path / "crossalign-demo").iterdir()}
    assert made >= {"mr_to_us.tfm", "us_moved.nii.gz", "report.html"}


def test_it_is_small(installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(run(installed / "python", "-m", "pip", "list", "--format", "json", folder=tmp_path))
    versions = {one["name"].lower(): one["version"] for one in listed}
    size = sum(path.lstat().st_size for path in installed.parent.rglob("*") if path.is_file())
    with capsys.disabled():
        sys.stdout.write(f"\n{len(versions)} packages, {size / 1e9:.2f} GB, torch {versions['torch']}\n")
    assert not {"pandas", "nilearn", "tensorboard", "pywavelets"} & set(versions)
    if versions["torch"].endswith("+cpu"):
        assert size < MOST_BYTES


def test_it_registers_without_torch_as_the_documentation_says(wheel: Path, tmp_path: Path) -> None:
    """With what docs/how-to/export.md names, and nothing else; the transform is that of `register` with torch."""
    page = (REPOSITORY / "docs" / "how-to" / "export.md").read_text()
    (named,) = re.findall(r"^pip install (numpy .*onnxruntime.*)$", page, re.MULTILINE)
    lean = environment(tmp_path / "lean", ["--no-deps", wheel], named.split())
    here = Path(sys.executable).parent
    run(sys.executable, "-m", "benchmarks.bench_register", "--write-pair", tmp_path, folder=REPOSITORY)
    run(here / "crossalign", "export", "correspondence-label", "-o", "net.onnx", folder=tmp_path)
    pair = ["mr.nii.gz", "us.nii.gz", "--initial", "initial.tfm", "--fixed-mask", "gland.nii.gz"]
    networks = [word for path in sorted(tmp_path.glob("net*.onnx")) for word in ("--network", path)]
    run(lean / "crossalign", "register-onnx", *pair, *networks, "--output-transform", "lean.tfm", folder=tmp_path)
    method = ["--method", "correspondence-label", "--recognition", "off"]
    run(here / "crossalign", "register", *pair, *method, "--output-transform", "torch.tfm", folder=tmp_path)
    code = "import importlib.util as u; print([n for n in ('torch', 'monai', 'onnx') if u.find_spec(n)])"
    assert run(lean / "python", "-c", code, folder=tmp_path).strip() == "[]"
    one, other = (sitk.ReadTransform(str(tmp_path / f"{name}.tfm")) for name in ("lean", "torch"))
    for point in ((0.0, 0.0, 0.0), (30.0, -20.0, 10.0), (-25.0, 15.0, -30.0)):
        assert one.TransformPoint(point) == pytest.approx(other.TransformPoint(point), abs=0.002)
