"""Odd command lines: each ends in status 2 and one line, without a traceback, a warning or a file."""

import os
import re
import shlex
from pathlib import Path

import pytest

from crossalign.cli.main import COMMANDS, EARLIER, command_app, main
from crossalign.models import Stage, StageSettings, save_stage
from crossalign.networks import build_network

OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9.-]*)(?![\w-])")

REGISTER = "register mr.nii.gz us.nii.gz --initial start.tfm --method identity --output-transform out.tfm"
NETWORK = REGISTER.replace("identity", "small.safetensors")
APPLY = "apply start.tfm us.nii.gz --reference mr.nii.gz -o out.nii.gz"
EVALUATE = "evaluate manifest.csv --method identity --initial-sre-mm 8 --count 1 -o out.csv"
FUSE = "fuse mr.nii.gz mr.nii.gz --method average -o out.nii.gz"
SCORE = "evaluate-fusion mr.nii.gz mr.nii.gz --method average -o out.csv"
PREPARE = "prepare-fusion mr.nii.gz mr.nii.gz -o out"
SIMULATE = "simulate 1 -o out"
TRAIN = "train manifest.csv --steps 1 --batch 2 -o out"
PRETRAIN = "pretrain manifest.csv --steps 1 --batch 2 -o out"
TRAIN_FUSION = "train-fusion pairs.csv --steps 1 -o out"
CALIBRATE = "calibrate table.csv --method net"
EXPLAIN = "explain mr.nii.gz us.nii.gz --initial start.tfm --method small.safetensors -o out"

NOT_WHOLE = [
    "",
    "x",
    "1_0",
    " 5",
    "5 ",
    "\u0665",
    "\uff15",
    "1.5",
    "1e3",
    "0x10",
    "nan",
    "inf",
    "--",
    "99999999999999999999",
]
NOT_NUMBERS = ["", "x", "1_0.0", " 5", "\uff15", "nan", "inf", "-inf", "1e999", "1,5", "0x10"]
WHOLE = {
    f"{NETWORK} --initialisations": ["0", "-1", "99999999999"],
    f"{EVALUATE} --count": ["0", "-3", "999999999"],
    f"{EVALUATE} --initialisation-seed": [],
    f"{REGISTER.replace('identity', 'mi')} --mi.bins": ["0", "4"],
    f"{SIMULATE} --anatomy.volume-ml": ["15", "15,20,30", "30,20", "0,500", "1_0,20"],
    f"{SIMULATE} --seed": ["-1", "4294967296"],
    f"{TRAIN} --steps": ["0", "-1"],
    f"{TRAIN} --simulate": ["-1"],
    f"{EXPLAIN} --steps": ["0"],
    f"{PREPARE} --size": ["8", "-1", "9999999"],
    f"{TRAIN_FUSION} --patch": ["0", "-48"],
}
NUMBERS = {
    f"{TRAIN} --rate": ["0", "-1"],
    f"{TRAIN} --patients": ["0", "-1", "2"],
    f"{TRAIN} --minutes": ["-1"],
    f"{TRAIN} --stage.crop-spacing-mm": ["0", "-2"],
    f"{CALIBRATE} --keep": ["0", "-1", "1.5"],
    f"{CALIBRATE} --threshold-mm": ["0", "-1"],
}
TEXTS = {
    f"{REGISTER} --device": ["", "abacus", "cuda:-1", "CPU"],
    f"{NETWORK} --orientation-correction": ["", "45", "automatic"],
    f"{REGISTER} --fixed-mask": ["", "no.nii.gz", "."],
    f"{REGISTER} --report": ["", ".", "missing/r.html", "/dev/null", "a" * 300],
    f"{REGISTER} --moved": ["", "m.jpg", "mr.nii.gz", "./us.nii.gz", "link.nii.gz"],
    "register mr.nii.gz us.nii.gz --method identity --output-transform out.tfm --initial": ["", "no.tfm", "."],
    "register mr.nii.gz us.nii.gz --initial start.tfm --output-transform out.tfm --method": [
        "",
        " ",
        "+",
        "elastix",
        "a+",
        "+a",
        "small.safetensors+",
        "small.safetensors++small.safetensors",
        "no.pth",
    ],
    f"{APPLY} --direction": ["", "sideways", "fixed-to-moving-to-fixed"],
    "apply start.tfm us.nii.gz -o out.nii.gz --reference": ["", "no.nii.gz", "."],
    "apply start.tfm us.nii.gz --reference mr.nii.gz -o": ["", ".", "out", "out.jpg", "us.nii.gz", "/dev/full"],
    "evaluate manifest.csv --initial-sre-mm 8 --count 1 -o out.csv --method": [
        "",
        ",",
        "identity,mi",
        "=identity",
        "a=",
        "nobody",
    ],
    f"{EVALUATE} --method": ["identity", "identity=mi"],
    "evaluate manifest.csv --method identity --count 1 -o out.csv --initial-sre-mm": [
        "",
        ",",
        "8,",
        "8,8",
        "soon",
        "nan",
        "inf",
        "-8",
        "8-",
        "20-0",
        "0-10-20",
        "1_0",
        "\uff18",
        "1e9",
        "0x8",
    ],
    f"{EVALUATE} --split": ["", "exam", "TEST", "train"],
    f"{EVALUATE} --initial-sre-mm": ["8", "8.0"],
    f"{EVALUATE.replace('identity', 'small.safetensors')}": [
        "--initialisations 0",
        "--initialisations 2.5",
        "--initialisations 99999999999",
        "--perturbation-mm inf",
        "--perturbation-mm -1",
        "--max-passes 1e9",
        "--search maybe",
        "--search",
        "--orientation-correction 45",
        "--seed 1_0",
        "--refinement-step 2",
        "--run initialisations=2",
        "--self 1",
        "--calibration 1",
        "--__class__ 1",
        "--mi.bins 16",
    ],
    f"{EVALUATE}": ["--initialisations 3", "--starts 8"],
    f"{SIMULATE}": ["--shapes.noise 0,1", "--shapes --mr.noise 0,1", "--anatomy", "--anatomy.luck 3", "--shapes=maybe"],
    f"{TRAIN_FUSION}": ["--heads.stretch 0.1"],
    "evaluate-fusion mr.nii.gz mr.nii.gz -o out.csv --method": ["", ",", "average,", "magic"],
    f"{SCORE} --method": ["average"],
    f"{FUSE} --emphasis": ["", "detail", "louder"],
    f"{FUSE} --colour": ["", "a.jpg", "."],
    f"{FUSE} --output-transform": ["a.tfm", ""],
    "fuse mr.nii.gz mr.nii.gz -o out.nii.gz --method": ["", "magic", "no.safetensors", "average,maximum"],
    f"{SIMULATE} --split": ["", "exam"],
    "simulate -o out": ["0", "-1", "1_0", " 1", "many", "999999999999", "\uff11"],
    "simulate 1 -o": ["", ".", "mr.nii.gz", "missing/out"],
    "demo --output": ["", "missing/out"],
    f"{TRAIN} --stage.crop-shape": [
        "",
        "32",
        "32,32",
        "32,32,32,32",
        "1_6,16,16",
        "0,16,16",
        "-8,8,8",
        "16,16,1e9",
        "a,b,c",
    ],
    f"{TRAIN} --initial-sre-mm": ["", "soon", "0-20", "20,0", "-5,0", "0,inf", "1_0,20"],
    f"{TRAIN} --loss": ["", "magic", "guided"],
    f"{TRAIN} --stage.network": ["", "resnet"],
    f"{TRAIN} --schedule": ["", "never"],
    f"{TRAIN} --precision": ["", "int8"],
    f"{TRAIN} --augmentation.mirror": ["w"],
    f"{TRAIN} --augmentation-preset": ["", "wild"],
    f"{TRAIN} --augmentation": ["none"],
    f"{TRAIN} --stage.fixed-input": ["", "both"],
    f"{TRAIN} --from": ["", "nobody", "no.safetensors", "correspondence-image:0", "correspondence-image:9"],
    f"{TRAIN} --pretrained": ["", "no.safetensors"],
    f"{TRAIN} --orientation-correction": ["45", "-90"],
    f"{PRETRAIN} --head": ["", "wide"],
    f"{PRETRAIN} --temperature": ["0", "-1", "nan"],
    f"{TRAIN_FUSION} --qabf-weights": ["", "1", "1,2,3", "a,b", "nan,1", "1_0,1"],
    f"{TRAIN_FUSION} --loss": ["", "magic"],
    f"{EXPLAIN} --point": ["", "1,2", "1,2,3,4", "1_0,2,3", "nan,0,0", "a,b,c", "1;2;3"],
    f"{EXPLAIN} --point-name": ["apex"],
    "calibrate table.csv --method": ["", "nobody"],
    f"{CALIBRATE} --model": ["", "small.safetensors", "no.safetensors"],
    f"{CALIBRATE} --model small.safetensors -o": ["", ".", "missing/x.safetensors"],
    f"{CALIBRATE} -o out.safetensors --model": ["small.safetensors+", "+", "no.safetensors"],
    "models": ["", "nobody", "../cards", "identity"],
    "": ["conquer", "register", "--fast", "register a b", "evaluate", "train", "simulate", "--version=2"],
}
CASES = [
    *((f"{EVALUATE} --count", value) for value in NOT_WHOLE),
    *((f"{CALIBRATE} --keep", value) for value in NOT_NUMBERS),
    *((start, value) for start, values in WHOLE.items() for value in ["1_0", "nan", *values]),
    *((start, value) for start, values in NUMBERS.items() for value in ["1_0.0", "nan", *values]),
    *((start, value) for start, values in TEXTS.items() for value in values),
]


@pytest.fixture(scope="module")
def odd(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a pair, small weights, a table, a manifest of MRI and PET, and a link to the moving image."""
    folder = tmp_path_factory.mktemp("odd")
    for path in pair.iterdir():
        if path.suffix in (".gz", ".tfm") or path.name == "manifest.csv":
            (folder / path.name).write_bytes(path.read_bytes())
    settings = StageSettings("feature-reg", (16, 16, 16), 5.0, 2.0)
    save_stage(
        Stage(build_network(settings.network, settings.crop_shape).eval(), settings, {}), folder / "small.safetensors"
    )
    rows = [f"net,{n}.0,{n}.5,," for n in range(12)]
    (folder / "table.csv").write_text("method,sre_mm,dispersion_mm,network_sre_mm,error\n" + "\n".join(rows) + "\n")
    (folder / "pairs.csv").write_text("case,mri,pet,split\na,mr.nii.gz,mr.nii.gz,train\nb,mr.nii.gz,mr.nii.gz,val\n")
    (folder / "link.nii.gz").symlink_to("us.nii.gz")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()}


def refused(words: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    before = contents(folder)
    status = main(words)
    out, err = capfd.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1), (words, status, out, err)
    assert err.startswith("crossalign: error: ")
    assert len(err) < 1100
    assert contents(folder) == before, words
    return err


@pytest.mark.parametrize("start", dict.fromkeys(start for start, _ in CASES))
def test_odd_values_are_refused(start: str, odd: Path, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(odd)
    for line, value in CASES:
        if line == start:
            refused([*shlex.split(start), *(shlex.split(value) if start == "" else [value])], odd, capfd)


def contents_are_inputs() -> list[tuple[str, str]]:
    """Name commands whose output is also an input of theirs, and that input."""
    network = "small.safetensors"
    return [
        (f"{APPLY} --overwrite", "us.nii.gz"),
        (f"{APPLY} --overwrite", "mr.nii.gz"),
        (f"{REGISTER} --overwrite --moved", "us.nii.gz"),
        (f"{REGISTER} --overwrite --report", "start.tfm"),
        (f"{NETWORK} --overwrite --report", network),
        (f"{EVALUATE} --overwrite", "manifest.csv"),
        (f"{SCORE.replace('mr.nii.gz mr.nii.gz', 'pairs.csv')} --overwrite", "pairs.csv"),
        (f"{FUSE} --overwrite --report", "mr.nii.gz"),
        (f"{FUSE.replace('average', network)} --overwrite --report", network),
        (f"{CALIBRATE} --model {network} --overwrite", network),
        (f"{CALIBRATE} --model {network} --overwrite", "table.csv"),
    ]


@pytest.mark.parametrize("how", ["name", "symbolic link", "hard link"])
@pytest.mark.parametrize(("start", "name"), contents_are_inputs())
def test_no_output_is_an_input(start: str, name: str, how: str, odd: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(odd)
    other = odd / (name if how == "name" else f"other-{name}")
    if how == "symbolic link":
        other.symlink_to(name)
    elif how == "hard link":
        os.link(odd / name, other)
    words = shlex.split(start)
    if words[-1] in ("--moved", "--report"):
        words.append(other.name)
    elif "-o" in words:
        words[words.index("-o") + 1] = other.name
    else:
        words += ["-o", other.name]
    try:
        assert "is an input of this run: write to another file" in refused(words, odd, capfd)
    finally:
        if how != "name":
            other.unlink()


def test_the_summaries_and_the_json_beside_an_output_are_outputs_too(odd: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(odd)
    (odd / "x.json").hardlink_to(odd / "mr.nii.gz")
    (odd / "x.summary.csv").hardlink_to(odd / "manifest.csv")
    for line in (FUSE.replace("out.nii.gz", "x.nii.gz"), EVALUATE.replace("out.csv", "x.csv")):
        assert "is an input" in refused([*shlex.split(line), "--overwrite"], odd, capfd)
    (odd / "x.json").unlink()
    (odd / "x.summary.csv").unlink()


def test_a_run_does_not_write_over_the_weights_that_it_begins_with(odd: Path, tmp_path: Path, capfd) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").write_bytes((odd / "small.safetensors").read_bytes())
    (run / "settings.json").write_text("{}")
    words = ["train", str(odd / "manifest.csv"), "-o", str(run), "--from", str(run / "best.safetensors")]
    assert "best.safetensors: is an input of this run" in refused(words, run, capfd)


@pytest.mark.parametrize("name", ["\x1b[31mred\x07.nii", "two\nlines.nii", "\udcff.nii", "n" * 5000])
def test_odd_names_are_shown_on_one_bounded_line(name: str, odd: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(odd)
    err = refused(["apply", "start.tfm", name, "--reference", "mr.nii.gz", "-o", "out.nii"], odd, capfd)
    assert err[:-1].isprintable()


def test_an_earlier_spelling_names_the_one_of_today(odd: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(odd)
    assert "use --initialisations" in refused(shlex.split(f"{NETWORK} --starts 3"), odd, capfd)
    assert "use --stage.crop-shape" in refused(shlex.split(f"{TRAIN} --crop-shape 32,32,32"), odd, capfd)
    known = {
        word for name in COMMANDS for one in command_app(name).assemble_argument_collection() for word in one.names
    }
    for earlier, text in EARLIER.items():
        assert set(re.findall(r"--[a-z][a-z-]*(?:\.[a-z-]+)*", text)) <= known, earlier
