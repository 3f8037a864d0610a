"""The pages "add a ..." do what they say: who follows them has a method, a network, a similarity and a file format."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import crossalign
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, read_transform, write_image, write_label_map, write_transform

ADDED = ("method", "network", "similarity", "file-format")
PAGES = [Path(__file__).parents[1] / "docs" / "how-to" / f"add-a-{what}.md" for what in ADDED]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # trains and evaluates in a copy of the package
GRID = Grid((24, 24, 24), (2.5, 2.5, 2.5), (-20.0, 15.0, 40.0))


def blocks(kind: str) -> list[str]:
    """Return the pages' code blocks of one language, without their fences."""
    text = "\n".join(page.read_text() for page in PAGES)
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line) for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]


def follow_the_pages(root: Path) -> None:
    """Copy the package to `root`, put the pages' files there and add its lines, each under the line that it names."""
    package = Path(crossalign.__file__).parent
    shutil.copytree(package, root / "src" / "crossalign", ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks("python"):
        path = root / block.splitlines()[0].removeprefix("# ")
        assert not path.exists(), f"{path} exists already: the page needs another example"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    for block in blocks("diff"):
        name, anchor, *added = block.splitlines()
        text = (root / name).read_text()
        assert text.count(f"{anchor[1:]}\n") == 1, f"{name}: no line '{anchor[1:]}'"
        assert added
        assert all(line.startswith("+") for line in added)
        lines = "\n".join(line[1:] for line in (anchor, *added))
        (root / name).write_text(text.replace(f"{anchor[1:]}\n", f"{lines}\n"))


def write_pair(folder: Path) -> None:
    """Write the scans that the pages' commands name: an ellipsoid, and the same 7 mm and a rotation further."""
    offsets = GRID.points_mm() - GRID.center_mm()
    body = torch.exp(-(offsets / torch.tensor([12.0, 10.0, 8.0])).square().sum(-1)).float()
    truth = Rigid.from_parameters(torch.tensor([4.0, -5, 3, 6, -4, 8]).double(), GRID.center_mm())
    off = Rigid.from_parameters(torch.tensor([-6.0, 5, 4, 0, 0, 0]).double(), GRID.center_mm())
    write_image(Image(body, GRID), folder / "mr.nii.gz")
    write_image(Image(body, GRID).resampled(GRID, truth.inverse(), fill=0.0), folder / "us.nii.gz")
    write_label_map(LabelMap((body > 0.4).long(), GRID), folder / "gland.nii.gz")
    write_transform(truth, folder / "reference.tfm")
    write_transform(truth @ off, folder / "initial.tfm")
    rows = [f"{split},{split},mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm" for split in ("train", "val")]
    (folder / "cases.csv").write_text("\n".join(["case,split,fixed,moving,fixed_mask,reference", *rows, ""]))


RUN_ALL = """
import json, runpy, sys
from crossalign.cli.main import main
commands, tests = json.loads(sys.argv[1])
for words in commands:
    assert main(words[1:]) == 0, words
for path in tests:
    for name, value in runpy.run_path(path).items():
        if name.startswith("test_"):
            value()
            print("passed", name)
"""


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Follow the pages, run their commands and tests in one fresh process; return the folder and what was printed."""
    root = tmp_path_factory.mktemp("newcomer")
    follow_the_pages(root)
    write_pair(root)
    tests = [str(path) for path in sorted((root / "tests").rglob("test_*.py"))]
    every = [*commands(), ["crossalign", "models"]]
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_ALL, json.dumps([every, tests])],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root, done.stdout


def table(path: Path) -> dict[str, list[float]]:
    """Read each method's errors, mm."""
    errors: dict[str, list[float]] = {}
    for row in csv.DictReader(path.read_text().splitlines()):
        assert row["error"] == ""
        errors.setdefault(row["method"], []).append(float(row["sre_mm"]))
    return errors


def test_the_method_registers(followed: tuple[Path, str]) -> None:
    root, _ = followed
    truth, found = read_transform(root / "reference.tfm"), read_transform(root / "out.tfm")
    assert float((found.translation_mm - truth.translation_mm).norm()) < 0.5


def test_the_method_is_evaluated_beside_the_others(followed: tuple[Path, str]) -> None:
    root, _ = followed
    errors = table(root / "table.csv")
    assert list(errors) == ["identity", "mass-centers"]
    assert errors["identity"] == pytest.approx([8.0, 8.0], abs=0.01)
    assert max(errors["mass-centers"]) < 7.0


def test_the_network_is_trained_and_evaluated(followed: tuple[Path, str]) -> None:
    root, _ = followed
    assert (root / "run" / "best.safetensors").is_file()
    assert list(table(root / "networks.csv")) == ["small-reg"]


def test_the_network_is_explained_with_its_attention(followed: tuple[Path, str]) -> None:
    root, _ = followed
    made = {path.name for path in (root / "explained").iterdir()}
    assert "report.html" in made
    assert any("gradcam-moving" in name for name in made)
    assert any("point-p1" in name for name in made)


def test_the_names_are_listed_and_the_pages_own_tests_pass(followed: tuple[Path, str]) -> None:
    _, out = followed
    assert "mass-centers" in out
    for test in ("finds_a_translation", "is_differentiable", "reads_what_simpleitk_writes"):
        assert f"passed test_{test}" in out


def test_the_pages_have_each_kind_of_block() -> None:
    assert [len(blocks(kind)) for kind in ("python", "diff", "sh")] == [7, 7, 2]
    assert all(words[0] == "crossalign" for words in commands())
