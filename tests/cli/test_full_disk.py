"""A full disk, and other disks that cannot be written: status 2, one line that says so, and the old files as they were.

The limit on the size of a file (`ulimit -f`) stands for a full disk everywhere; where the tests may mount a small disk
in memory, they fill that one too.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from crossalign.cli.main import main
from crossalign.images import write_transform
from crossalign.models import Stage, StageSettings, save_stage
from crossalign.networks import build_network

OLD = b"a good result"
LIMIT_BYTES = 150  # less than any output but the header of a table


@contextmanager
def limited(size: int = LIMIT_BYTES) -> Iterator[None]:
    """Let no file of this process grow over `size` bytes.

    Python writes no bytecode meanwhile: it would leave a part of a module's, which no later process could import.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = before


@dataclass(frozen=True)
class Disk:
    """A folder to write into, and what makes it full."""

    folder: Path
    full: Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["limit", "disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "limit":
        yield Disk(tmp_path, limited)
        return
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    tool = shutil.which("mount")
    if os.geteuid() != 0 or tool is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("the tests may not mount a disk here")
    try:
        yield Disk(folder, lambda: filled(folder))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    try:
        yield
    finally:
        (folder / "filler").unlink()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    torch.manual_seed(0)
    settings = StageSettings("attention-reg", (16, 16, 16), 5.0, 2.0)
    save_stage(Stage(build_network(settings.network, settings.crop_shape).eval(), settings, {}), path)
    return path


def scans(pair: Path) -> list[str]:
    return [str(pair / "mr.nii.gz"), str(pair / "us.nii.gz")]


def register(pair: Path, folder: Path, _weights: Path) -> tuple[list[str], list[str]]:
    words = ["register", *scans(pair), "--initial", str(pair / "start.tfm"), "--method", "identity", "--overwrite"]
    words += ["--output-transform", str(folder / "a.tfm"), "--moved", str(folder / "a.nii.gz")]
    return [*words, "--report", str(folder / "a.html")], ["a.tfm", "a.nii.gz", "a.html"]


def apply(suffix: str) -> Callable[[Path, Path, Path], tuple[list[str], list[str]]]:
    def words(pair: Path, folder: Path, _weights: Path) -> tuple[list[str], list[str]]:
        given = ["apply", str(pair / "start.tfm"), str(pair / "us.nii.gz"), "--reference", str(pair / "mr.nii.gz")]
        return [*given, "--overwrite", "-o", str(folder / f"a{suffix}")], [f"a{suffix}"]

    return words


def apply_points(pair: Path, folder: Path, _weights: Path) -> tuple[list[str], list[str]]:
    points = pair / "many.csv"
    points.write_text("x,y,z\n" + "1,2,3\n" * 400)
    return ["apply", str(pair / "start.tfm"), str(points), "--overwrite", "-o", str(folder / "a.csv")], ["a.csv"]


def fuse(pair: Path, folder: Path, _weights: Path) -> tuple[list[str], list[str]]:
    words = ["fuse", str(pair / "mr.nii.gz"), str(pair / "mr.nii.gz"), "--method", "average", "--overwrite"]
    words += ["--report", str(folder / "a.html"), "--colour", str(folder / "a.png")]
    return [*words, "-o", str(folder / "a.nii")], ["a.nii", "a.json", "a.html", "a.png"]


def evaluate(pair: Path, folder: Path, _weights: Path) -> tuple[list[str], list[str]]:
    words = ["evaluate", str(pair / "manifest.csv"), "--method", "identity", "--initial-sre-mm", "4", "--count", "2"]
    names = ["a.csv", "a.summary.csv", "a.summary.md", "a.summary.tex"]
    return [*words, "--overwrite", "-o", str(folder / "a.csv")], names


def evaluate_fusion(pair: Path, folder: Path, _weights: Path) -> tuple[list[str], list[str]]:
    words = ["evaluate-fusion", str(pair / "mr.nii.gz"), str(pair / "mr.nii.gz"), "--method", "average"]
    return [*words, "--overwrite", "-o", str(folder / "a.csv")], ["a.csv", "a.md"]


def calibrate(pair: Path, folder: Path, weights: Path) -> tuple[list[str], list[str]]:
    table = pair / "estimates.csv"
    rows = [f"a,{n}.0,{n}.5,," for n in range(12)]
    table.write_text("method,sre_mm,dispersion_mm,network_sre_mm,error\n" + "\n".join(rows) + "\n")
    words = ["calibrate", str(table), "--model", str(weights), "--overwrite", "-o", str(folder / "a.safetensors")]
    return words, ["a.safetensors"]


def explain(pair: Path, folder: Path, weights: Path) -> tuple[list[str], list[str]]:
    words = ["explain", *scans(pair), "--initial", str(pair / "start.tfm"), "--method", str(weights), "--steps", "1"]
    return [*words, "-o", str(folder / "a")], []


def simulate(_pair: Path, folder: Path, _weights: Path) -> tuple[list[str], list[str]]:
    return ["simulate", "1", "-o", str(folder / "a")], []


def demo(_pair: Path, folder: Path, _weights: Path) -> tuple[list[str], list[str]]:
    return ["demo", "--output", str(folder / "a")], []


def train(pair: Path, folder: Path, _weights: Path) -> tuple[list[str], list[str]]:
    row = "mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm"
    manifest = pair / "training.csv"
    lines = [f"{split}{n},{split},{row}" for split in ("train", "val") for n in "12"]
    manifest.write_text("\n".join(["case,split,fixed,moving,fixed_mask,reference", *lines]) + "\n")
    words = ["train", str(manifest), "--steps", "1", "--batch", "2", "--val-initialisations", "1", "--device", "cpu"]
    return [*words, "--stage.crop-shape", "16,16,16", "--stage.crop-spacing-mm", "4", "-o", str(folder / "a")], []


COMMANDS = {
    "register": register,
    "apply .nii": apply(".nii"),
    "apply .nii.gz": apply(".nii.gz"),
    "apply .nrrd": apply(".nrrd"),
    "apply .mha": apply(".mha"),
    "apply .csv": apply_points,
    "fuse": fuse,
    "evaluate": evaluate,
    "evaluate-fusion": evaluate_fusion,
    "calibrate": calibrate,
    "explain": explain,
    "simulate": simulate,
    "demo": demo,
    "train": train,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_leaves_the_old_files(name: str, pair: Path, weights: Path, disk: Disk, capsys) -> None:
    words, outputs = COMMANDS[name](pair, disk.folder, weights)
    for output in outputs:
        (disk.folder / output).write_bytes(OLD)
    with disk.full():
        status = main(words)
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not re.match(r"crossalign: (warning|\d+ of \d+ )", line)]
    assert (status, out, len(lines)) == (2, "", 1), err
    assert "no space left" in err
    assert "damaged" not in err
    assert ".crossalign-partial" not in err
    assert sorted(path.name for path in disk.folder.iterdir() if path.name != "disk") == sorted(outputs)
    assert all((disk.folder / output).read_bytes() == OLD for output in outputs)


@pytest.mark.parametrize("size", [300, 5_000, 40_000])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_an_image_is_whole_or_the_old_one_stays(suffix: str, size: int, pair: Path, tmp_path: Path, capsys) -> None:
    words, (name,) = apply(suffix)(pair, tmp_path, tmp_path)
    (tmp_path / name).write_bytes(OLD)
    with limited(size):
        assert main(words) == 2
    assert "no space left" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == OLD


def test_a_full_standard_output_is_told_of(capfd) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = subprocess.run(["sh", "-c", '"$0" -m crossalign models > /dev/full', sys.executable], check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "standard output: cannot be written: no space left" in done.stderr


def test_a_file_keeps_its_mode_and_new_ones_follow_the_umask(pair: Path, tmp_path: Path) -> None:
    start = str(pair / "start.tfm")
    points = tmp_path / "p.csv"
    points.write_text("x,y,z\n1,2,3\n")
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "old.csv").chmod(0o600)
    before = os.umask(0o027)
    try:
        assert main(["apply", start, str(points), "-o", str(tmp_path / "old.csv"), "--overwrite"]) == 0
        assert main(["apply", start, str(points), "-o", str(tmp_path / "new.csv")]) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "old.csv").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new.csv").stat().st_mode & 0o777 == 0o640


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written to, by root neither: a disk mounted to be read."""
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("root may write everywhere, and the tests may not mount a disk here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("name", ["register", "fuse", "calibrate", "explain", "simulate", "demo", "train"])
def test_a_folder_that_can_only_be_read(name: str, pair: Path, weights: Path, locked: Path, capfd) -> None:
    words, _ = COMMANDS[name](pair, locked, weights)
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert str(locked) in err
    assert "cannot be written" in err or "can only be read" in err or "permission" in err
    assert list(locked.iterdir()) == []


def test_errors_keep_their_place_in_the_pair(pair: Path, tmp_path: Path) -> None:
    write_transform(torch_identity(), tmp_path / "a.tfm")
    with limited(50), pytest.raises(OSError, match=r"a\.tfm: cannot be written: no space left"):
        write_transform(torch_identity(), tmp_path / "a.tfm", overwrite=True)


def torch_identity():
    from crossalign.geometry import Rigid

    return Rigid(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
