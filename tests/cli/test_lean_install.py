"""The base installation: `register`, `apply`, `fuse` and their reports need no extra, and who needs one is told which.

`make check-wheel` installs the wheel itself in a clean environment; here a process sees the same packages, for every
other one that is installed is hidden from it.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.cli.distributions import lacking
from tests.fusion.phantom import pair as fusion_pair

from crossalign.images import write_image

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
# Runs command lines one after another where some packages cannot be imported: the status and errors of each.
HIDDEN = """
import contextlib, io, json, sys
hidden, commands = json.load(sys.stdin)

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
from crossalign.cli.main import main
found = []
for words in commands:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        found.append((main(words), errors.getvalue()))
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def hidden() -> list[str]:
    """Names of the modules that a base installation lacks."""
    return lacking(tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"])


@pytest.fixture(scope="module")
def ran(hidden: list[str], pair: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[object]]]:
    """The folder of what the commands wrote, and each one's status and errors."""
    out = tmp_path_factory.mktemp("lean")
    for image, name in zip(fusion_pair(), ("mri", "pet"), strict=True):
        write_image(image, out / f"{name}.nii.gz")
    words = [text.format(pair=pair, out=out).split() for text in (*BASE, *EXTRAS.values())]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HIDDEN],
        input=json.dumps((hidden, words)), capture_output=True, text=True, check=False, cwd=out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


FILES = "--output-transform {out}/t.tfm --moved {out}/moved.nii.gz --record {out}/r.json --report {out}/r.html"
BASE = (
    f"register {{pair}}/mr.nii.gz {{pair}}/us.nii.gz --initial {{pair}}/start.tfm {FILES}",
    "apply {out}/t.tfm {pair}/us.nii.gz --reference {pair}/mr.nii.gz -o {out}/applied.nii.gz",
    "fuse {out}/mri.nii.gz {out}/pet.nii.gz -o {out}/fused.nii.gz --report {out}/f.html --colour {out}/f.png",
)
# A command that needs each extra; those of the others are tested beside what needs them.
EXTRAS = {
    "train": "train {pair}/manifest.csv -o {out}/run",
    "evaluate": "evaluate {pair}/manifest.csv --method identity --initial-sre-mm 8 --count 1 -o {out}/table.csv",
    "fusion-classical": "fuse {out}/mri.nii.gz {out}/pet.nii.gz --method wavelet -o {out}/w.nii.gz",
    "onnx": "export correspondence-image -o {out}/net.onnx",
    "fusion-template": "prepare-fusion {out}/mri.nii.gz {out}/pet.nii.gz --size 24 -o {out}/cube",
}
WRITTEN = {"t.tfm", "moved.nii.gz", "r.json", "r.html", "applied.nii.gz", "fused.nii.gz", "f.html", "f.png"}


def test_what_is_hidden_is_what_the_extras_bring(hidden: list[str]) -> None:
    assert {"pandas", "tensorboard", "pywt", "nilearn", "sklearn", "accelerate", "onnxruntime"} <= set(hidden)
    assert not {"torch", "numpy", "monai", "SimpleITK", "matplotlib", "crossalign"} & set(hidden)


def test_register_apply_fuse_and_their_reports_need_no_extra(ran: tuple[Path, list[list[object]]]) -> None:
    out, found = ran
    for text, (status, errors) in zip(BASE, found[: len(BASE)], strict=True):
        assert status == 0, (text, errors)
    assert {path.name for path in out.iterdir()} >= WRITTEN


def test_an_extra_that_is_missing_is_named_before_anything_is_written(ran: tuple[Path, list[list[object]]]) -> None:
    out, found = ran
    for (extra, text), (status, errors) in zip(EXTRAS.items(), found[len(BASE) :], strict=True):
        assert status == 2, (text, errors)
        assert f"pip install 'crossalign[{extra}]'\n" in str(errors), text
    assert not {path.name for path in out.iterdir()} & {"run", "table.csv", "w.nii.gz", "cube", "net.onnx"}


def test_all_is_every_extra_of_a_user() -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    (named,) = map(Requirement, extras["all"])
    assert named.extras == set(extras) - {"all", "dev", "docs"}
    assert "crossalign[all]" in extras["dev"]
