"""`--json`: every command prints one document whose fields are documented, and ends with the same status as without."""

import dataclasses
import json
import math
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fusion.phantom import pair as fusion_pair
from tests.onnx_runtime.handmade import write_network
from tests.training.site import write_model, write_site

from crossalign.cli import demonstration
from crossalign.cli.main import COMMANDS, command_app, function_of, main
from crossalign.cli.reply import NOTE, plain
from crossalign.export import exporting
from crossalign.export.graphs import Graph
from crossalign.export.onnx_file import Agreement
from crossalign.fields import docs_of
from crossalign.images import read_grid, write_image

TOP = ["command", "version", "schema", "status", "result", "error", "outputs", "warnings", "note"]
SMALL = "--batch 2 --stage.crop-shape 16,16,16 --stage.crop-spacing-mm 4 --val-every 2 --steps 2 --device cpu"
ADAPTED = "--steps 1 --val-every 1 --batch 2 --synthesised-pairs 0 --val-initialisations 1 --device cpu"


@pytest.fixture(scope="module")
def world(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the commands are run on, by the words of CALLS."""
    folder = tmp_path_factory.mktemp("json")
    for image, name in zip(fusion_pair(), ("mri", "pet"), strict=True):
        write_image(image, folder / f"{name}.nii.gz")
    row = "{0}{1},{0},{2}/mr.nii.gz,{2}/us.nii.gz,{2}/gland.nii.gz,{2}/reference.tfm"
    rows = [row.format(split, n, pair) for split in ("train", "val") for n in "12"]
    (folder / "training.csv").write_text("\n".join(["case,split,fixed,moving,fixed_mask,reference", *rows]) + "\n")
    (folder / "broken.nii.gz").write_text("no image")
    rows = [f"{name},{pair}/mr.nii.gz,{us}" for name, us in (("a", pair / "us.nii.gz"), ("b", "broken.nii.gz"))]
    (folder / "pairs.csv").write_text("\n".join(["case,fixed,moving", *rows]) + "\n")
    rows = [f"{split},mri.nii.gz,pet.nii.gz,{split}" for split in ("train", "val")]
    (folder / "fusions.csv").write_text("\n".join(["case,mri,pet,split", *rows]) + "\n")
    generator = torch.Generator().manual_seed(0)
    rows = ["case,patient,method,initial_sre_mm,sre_mm,dispersion_mm,network_sre_mm"]
    for number in range(30):
        network, noise = torch.rand(2, generator=generator).tolist()
        rows.append(f"c{number},p{number},net,10,{2 + 6 * network + noise},{1 + network},{6 * network}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return {
        "pair": str(pair),
        "site": str(write_site(folder / "site", 4)),
        "model": str(write_model(folder / "toy.safetensors", offset_mm=3.0)),
        "exported": str(write_network(folder / "net.onnx", (1.0, 0.0, 0.0, 0.0, 0.0, 0.0))),
        "heads": str(folder),
        "table": str(folder / "table.csv"),
        "manifest": str(folder / "training.csv"),
        "fusions": str(folder / "fusions.csv"),
        "pairs": str(folder / "pairs.csv"),
        "point": ",".join(f"{value:.1f}" for value in read_grid(pair / "mr.nii.gz").center_mm().tolist()),
    }


REGISTER = "register {pair}/mr.nii.gz {pair}/us.nii.gz --initial {pair}/start.tfm --output-transform {out}/t.tfm"
SCANS = "{heads}/mri.nii.gz {heads}/pet.nii.gz"
# How each command is called here: a new command needs its line.
CALLS = {
    "register": f"{REGISTER} --method identity --record {{out}}/r.json --moved {{out}}/m.nii.gz",
    "register-onnx": "register-onnx {pair}/mr.nii.gz {pair}/us.nii.gz --network {exported} --initial {pair}/start.tfm "
    "--output-transform {out}/t.tfm",
    "batch": "batch {pairs} -o {out}/cohort --method identity --recognition off --no-report",
    "apply": "apply {pair}/start.tfm {pair}/us.nii.gz --reference {pair}/mr.nii.gz --fill nan -o {out}/moved.nii.gz",
    "transform convert": "transform convert {pair}/start.tfm {out}/t.txt --to matrix-ras",
    "transform invert": "transform invert {pair}/start.tfm {out}/t.tfm",
    "transform compose": "transform compose {pair}/start.tfm {pair}/reference.tfm -o {out}/t.tfm",
    "demo": "demo -o {out}/demo",
    "explain": "explain {pair}/mr.nii.gz {pair}/us.nii.gz --initial {pair}/start.tfm --method {model} --steps 1 "
    "--point {point} -o {out}/maps",
    "evaluate": "evaluate {pair}/manifest.csv --method identity --initial-sre-mm 8 --count 2 -o {out}/table.csv",
    "calibrate": "calibrate {table}",
    "models": "models",
    "combine": "combine {model} -o {out}/made.safetensors",
    "export": "export {model} -o {out}/net.onnx",
    "simulate": "simulate 1 -o {out}/cases",
    "train": f"train {{manifest}} -o {{out}}/run {SMALL}",
    "adapt": f"adapt {{site}} --from {{model}} -o {{out}}/run {ADAPTED}",
    "pretrain": f"pretrain {{manifest}} -o {{out}}/run --tokens 16 {SMALL}",
    "train-error-head": "train-error-head correspondence-image:1 {manifest} --steps 1 --batch 2 --device cpu "
    "-o {out}/head.safetensors",
    "fuse": f"fuse {SCANS} --method average -o {{out}}/fused.nii.gz",
    "evaluate-fusion": f"evaluate-fusion {SCANS} --method average -o {{out}}/scores.csv",
    "prepare-fusion": f"prepare-fusion {SCANS} --size 24 -o {{out}}/cube",
    "train-fusion": "train-fusion {fusions} -o {out}/run --steps 1 --patch 24 --minutes 1e-5 --device cpu",
}
STATUS = {"batch": 1}  # one of its cases is broken


def not_traced(_: Graph, __: Mapping[str, str], path: Path, ___: bool = False) -> Agreement:
    path.write_text("no network")
    return Agreement((1, 3), {"parameters": 0.0})


def words_of(world: dict[str, str], out: Path) -> list[str]:
    return [*REGISTER.format(**world, out=out).split(), "--method", "identity"]


def called(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any], str]:
    """Run a command with `--json`: its status, the one document on standard output, and standard error."""
    status = main([*map(str, words), "--json"])
    out, err = capfd.readouterr()
    document = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(document) == TOP
    assert document["status"] == status, err
    assert document["note"] == NOTE
    return status, document, err


def kind_of(name: str) -> type:
    (kind,) = typing.get_args(typing.get_type_hints(function_of(name))["return"])
    return typing.cast(type, kind)


def check_fits(hint: Any, value: Any, where: str) -> None:
    """Check that a value of the document is what the dataclass of the result says, however deep."""
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        assert value is not None or types.NoneType in parts or float in parts, where
        kinds = [part for part in parts if part is not types.NoneType]
        return None if value is None else check_fits(kinds[0], value, where)
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        hints = typing.get_type_hints(hint)
        assert set(value) == set(hints), where
        for name, inner in hints.items():
            check_fits(inner, value[name], f"{where}.{name}")
    elif typing.get_origin(hint) in (tuple, list):
        assert isinstance(value, list), where
        for part in value:
            check_fits(parts[0], part, where)
    elif typing.get_origin(hint) is Mapping:
        assert isinstance(value, dict), where
    elif hint is not Any:
        allowed: dict[object, Any] = {float: (float, int, types.NoneType), Path: str}
        assert isinstance(value, allowed.get(hint, hint)), f"{where}: {value!r}"
    return None


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_its_result(
    name: str, world: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "demo":  # as it is, but for the network
        made = demonstration._demo_request
        monkeypatch.setattr(
            demonstration, "_demo_request", lambda *of: dataclasses.replace(made(*of), method="identity", report=None)
        )
    if name == "export":  # as it is, but for the tracing, which takes long: tests/export
        monkeypatch.setattr(exporting, "export_graph", not_traced)
    status, document, err = called(capfd, *CALLS[name].format(**world, out=tmp_path).split())
    assert status == STATUS.get(name, 0), err
    assert document["command"] == name
    assert document["error"] is None
    check_fits(kind_of(name), document["result"], name)
    assert all(Path(path).is_file() for path in document["outputs"])
    assert document["outputs"] or name in ("models", "calibrate")
    assert all(f"warning: {text.split()[0]}" in err for text in document["warnings"])
    assert all(str(tmp_path) in path for path in document["outputs"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_option_and_answers_errors_in_json(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "--json" in {word for one in command_app(name).assemble_argument_collection() for word in one.names}
    status, document, err = called(capfd, *name.split(), "--no-such-option")
    assert status == main([*name.split(), "--no-such-option"]) == 2
    assert (document["command"], document["result"], document["outputs"]) == (name, None, [])
    assert document["error"] == {"type": "UsageError", "message": err.removeprefix("crossalign: error: ").rstrip("\n")}
    kinds = [kind_of(name)]
    while kinds:
        kind = kinds.pop()
        hints = typing.get_type_hints(kind)
        assert set(hints) <= set(docs_of(kind)), kind
        parts = [part for hint in hints.values() for part in (hint, *typing.get_args(hint))]
        kinds += [part for part in parts if dataclasses.is_dataclass(part) and isinstance(part, type)]


def test_the_result_of_register_is_its_record(
    world: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gland, reference = f"{world['pair']}/gland.nii.gz", f"{world['pair']}/reference.tfm"
    more = ("--record", tmp_path / "r.json", "--fixed-mask", gland, "--reference", reference, "--recognition", "off")
    _, document, _ = called(capfd, *words_of(world, tmp_path), *more)
    record, result = json.loads((tmp_path / "r.json").read_text()), document["result"]
    assert set(record) - set(result) == {"format", "matrices", "versions", "note", "warnings"}
    assert {name: result[name] for name in result if name != "errors"} == {
        name: record[name] for name in result if name != "errors"
    }
    assert document["warnings"] == record["warnings"]
    errors = result["errors"]
    assert errors["sre_before_mm"] == errors["sre_after_mm"] > 1  # the method is 'identity'
    assert document["outputs"] == [str(tmp_path / "t.tfm"), str(tmp_path / "r.json")]


def test_status_and_verdict_are_those_without(
    world: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*words_of(world, tmp_path), "--recognition", "on", "--strict"]  # noise is no prostate
    assert main(words) == 3
    text = capfd.readouterr().out
    status, document, err = called(capfd, *words, "--overwrite")
    assert status == 3
    assert document["result"]["trusted"] is False
    assert all(f"do not trust this result: {reason}" in text for reason in document["result"]["reasons"])
    assert document["warnings"][0] in err


def test_errors_keep_their_status_and_say_their_kind(
    world: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.tfm").write_text("mine")
    status, document, _ = called(capfd, *words_of(world, tmp_path))
    assert (status, document["error"]["type"]) == (2, "OutputError")
    assert "exists already" in document["error"]["message"]
    status, document, _ = called(capfd, "register", tmp_path / "no.nii.gz", f"{world['pair']}/us.nii.gz",
                                 "--output-transform", tmp_path / "new.tfm")  # fmt: skip
    assert (status, document["error"]["type"]) == (2, "ImageError")
    status, document, _ = called(capfd, "nonsense")
    assert (status, document["command"], document["error"]["type"]) == (2, "nonsense", "UsageError")
    assert (tmp_path / "t.tfm").read_text() == "mine"


def test_the_option_takes_no_value(world: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["--json", "r.json"], ["--json=r.json"]):
        assert main([*words_of(world, tmp_path), *words]) == 2
        assert "--json takes no value" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_a_library_prints_does_not_reach_the_document(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = function_of("models")

    def noisy(request: Any) -> Any:
        sys.stdout.write("noise")
        return run(request)

    monkeypatch.setattr("crossalign.cli.models.run_models", noisy)
    _, document, err = called(capfd, "models", "orientation")
    assert "noise" in err
    assert document["result"]["card"].startswith("# Model card: orientation")


def test_values_become_json() -> None:
    given = {"a": (1, 2.5, math.nan, math.inf, True, None), "path": Path("x") / "y", "bytes": "a\udcff"}
    assert plain(given) == {"a": [1, 2.5, None, None, True, None], "path": "x/y", "bytes": "a\\udcff"}
    with pytest.raises(TypeError, match="nothing for set"):
        plain({"a": {1}})
