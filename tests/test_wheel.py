"""The wheel in a clean environment, without constraints: it installs, is small, and runs the demo.

Takes minutes and a network, so that only `make check-wheel` asks for it; tests/cli/test_lean_install.py stands for it
in every other run.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment with the wheel and what it brings."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, REPOSITORY, folder=folder)
    (wheel,) = folder.glob("crossalign-*.whl")
    venv.create(folder / "clean", with_pip=True)
    place = folder / "clean" / "bin"
    for wanted in (TORCH.split(), [wheel]):
        if wanted:
            pip = (place / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            run(*pip, *wanted, folder=folder)
    return place


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
