"""`crossalign register-onnx`: without torch, and what it says of files that do not fit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tests.cli.distributions import lacking
from tests.onnx_runtime.handmade import description, write_network

from crossalign.cli.main import main
from crossalign.cli.onnx_registration import VERDICT
from crossalign.geometry import Rigid
from crossalign.images import read_image, read_mask, read_transform
from crossalign.models.calibration import Calibration

# Runs the command line where what docs/how-to/export.md does not name cannot be imported.
WITHOUT_TORCH = """
import sys
hidden = set(sys.argv.pop(1).split(","))

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"there is no {name} here", name=name)

sys.meta_path.insert(0, Hidden())
from crossalign.cli.main import main
status = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(status)
"""
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "export.md"
SHIFT = (4.0, -3.0, 2.0, 0.0, 0.0, 10.0)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("network") / "net.onnx", SHIFT)


def words(pair: Path, network: Path, out: Path) -> list[str]:
    given = f"register-onnx {pair}/mr.nii.gz {pair}/us.nii.gz --network {network} --initial {pair}/reference.tfm"
    return [*given.split(), "--fixed-mask", f"{pair}/gland.nii.gz", "--output-transform", f"{out}/t.tfm"]


def test_it_registers_with_what_the_page_names(pair: Path, network: Path, tmp_path: Path) -> None:
    (named,) = re.findall(r"^pip install (numpy .*onnxruntime.*)$", PAGE.read_text(), re.MULTILINE)
    hidden = lacking(named.split())
    assert {"torch", "monai", "jaxtyping", "scipy", "onnx"} <= set(hidden)
    command = [*words(pair, network, tmp_path), "--moved", f"{tmp_path}/moved.nii.gz", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, ",".join(hidden), *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["result"]
    assert result["trusted"] is None
    assert "nothing checked" in result["unchecked"]
    assert result["expected_sre_mm"] is None
    written = sitk.ReadTransform(str(tmp_path / "t.tfm"))
    point = (70.0, 30.0, -10.0)
    again = np.array(result["fixed_to_moving"]) @ (*point, 1.0)
    assert np.allclose(written.TransformPoint(point), again[:3], atol=1e-9)
    # The answer is what the network says, about the gland's centre, after the initial transform.
    initial, center = read_transform(pair / "reference.tfm"), read_mask(pair / "gland.nii.gz").centroid_mm()
    expected = initial @ Rigid.from_parameters(center.new_tensor(SHIFT), center)
    assert np.allclose(np.array(result["fixed_to_moving"]), expected.matrix().numpy(), atol=1e-5)
    moved, wanted = read_image(tmp_path / "moved.nii.gz"), read_image(pair / "us.nii.gz")
    grid = read_image(pair / "mr.nii.gz").grid
    assert moved.grid.agrees_with(grid)
    assert float((moved.voxels - wanted.resampled(grid, expected).voxels).abs().max()) < 1e-3


def test_an_answer_that_leaves_the_image_is_not_to_be_trusted(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = write_network(tmp_path / "net.onnx", (80.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert main([*words(pair, away, tmp_path), "--strict"]) == 3
    out, err = capsys.readouterr()
    assert f"{VERDICT}: it brings only 0% of the fixed structure into the moving image" in out
    assert VERDICT in err


def test_a_calibrated_model_says_what_its_expectation_needs(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated = description(calibration=vars(Calibration(3.0, 0.0, 0.0, 8.0, (), 1.5, 0.9)))
    network = write_network(tmp_path / "net.onnx", SHIFT, calibrated)
    assert main(words(pair, network, tmp_path)) == 0
    out = capsys.readouterr().out
    assert "expected SRE 3.0 mm, under 4.5 mm with 90%, if the scans are what the model was made for" in out
    assert "unchecked nothing checked" in out


def test_networks_of_an_ensemble_are_averaged(pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = [
        write_network(tmp_path / f"{number}.onnx", (shift, 0, 0, 0, 0, 0), description(number, 2))
        for number, shift in ((1, 2.0), (2, 6.0))
    ]
    given = words(pair, two[1], tmp_path)
    assert main([*given, "--network", str(two[0])]) == 0
    assert "motion   4.00 mm (L +4.00" in capsys.readouterr().out
    assert main([*given, "--overwrite"]) == 2
    assert "handmade has 2 networks, got 2: give each of them once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--network", "{pair}/mr.nii.gz"), "no ONNX file that onnxruntime can run"),
        (("--initial", "nowhere"), "no such transform file"),
        (("--initial", "header"), "brings no point of the fixed structure"),
        (("--fixed-mask", "{pair}/us_gland.nii.gz"), "does not lie on the grid"),
        (("--fixed-mask", "{pair}/mr.nii.gz"), "expected one structure"),
        (("--output-transform", "{out}/t.png"), "end the name in .tfm"),
        (("--output-transform", "{pair}/reference.tfm"), "exists already"),
        (("--moved", "{out}/m.png"), "cannot tell the format"),
        (("--threads", "-1"), "threads"),
        (("--moving-orientation", "auto"), "use `crossalign register`, or where both headers are wrong"),
    ],
)
def test_what_does_not_fit_is_said(
    changed: tuple[str, str], said: str, pair: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(pair, network, tmp_path)
    option, value = (word.format(pair=pair, out=tmp_path) for word in changed)
    if option in given:
        place = given.index(option)
        del given[place : place + 2]
    assert main([*given, option, value]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "t.tfm").exists()


def test_a_model_that_is_run_otherwise_is_refused(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = write_network(tmp_path / "net.onnx", SHIFT, description(run={"initialisations": 8}))
    assert main(words(pair, network, tmp_path)) == 2
    assert "not supported here: use `crossalign register`" in capsys.readouterr().err
