"""Weight files that are damaged, foreign or ask for too much are refused quickly, by an error that says what to do."""

import json
import os
import struct
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.damage import damaged
from tests.models.test_earlier_files import write_stage

from crossalign.errors import CrossalignError, InputError, WeightsError
from crossalign.fusion.networks.model_files import (
    FusionModel,
    build_fusion_network,
    load_fusion_model,
    save_fusion_model,
)
from crossalign.fusion.networks.settings import CompactSettings, DCFBSettings, FusionStageSettings
from crossalign.models import (
    Stage,
    StageSettings,
    load_original_checkpoint,
    load_stage,
    save_stage,
)
from crossalign.models import (
    published as original,
)
from crossalign.models.extractors import load_extractors, save_extractors
from crossalign.models.model_file import read_model_file, save_model_file
from crossalign.networks import build_network, network_names
from crossalign.networks.registry import check_crop_shape

SMALL = StageSettings("feature-reg", (8, 8, 8), 2.0, 1.5)
FUSION = FusionStageSettings("dcfb-compact", CompactSettings(8, 1, 1, 2, 2, 3, 4, 6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with one file of each kind."""
    folder = tmp_path_factory.mktemp("weights")
    network = build_network(SMALL.network, SMALL.crop_shape)
    save_stage(Stage(network, SMALL, {"steps": "7"}), folder / "stage.safetensors")
    save_fusion_model(FusionModel(build_fusion_network(FUSION), FUSION, {}), folder / "fusion.safetensors")
    save_extractors(network, SMALL, {}, folder / "extractors.safetensors")
    return folder


LOADERS: dict[str, Callable[[Path], object]] = {
    "stage": load_stage,
    "fusion": load_fusion_model,
    "extractors": load_extractors,
}


def with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("kind", LOADERS)
def test_every_damage_is_found(kind: str, folder: Path, tmp_path: Path) -> None:
    whole = (folder / f"{kind}.safetensors").read_bytes()
    path = tmp_path / "damaged.safetensors"
    for copy in damaged(whole, np.random.default_rng(3), 120):
        path.write_bytes(copy)
        if copy != whole:
            with pytest.raises(WeightsError, match=r"damaged\.safetensors: "):
                LOADERS[kind](path)


def test_files_without_a_digest_are_refused_or_hold_numbers(tmp_path: Path) -> None:
    """Those of earlier versions."""
    path = tmp_path / "old.safetensors"
    write_stage(path, "feature-reg")
    whole = path.read_bytes()
    load_stage(path)
    for copy in damaged(whole, np.random.default_rng(4), 120):
        path.write_bytes(copy)
        try:
            load_stage(path)
        except CrossalignError as error:
            assert "old.safetensors" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[1]", "no list of tensors"),
        (b"[" * 5000, "nested"),
        (b'{"a": 1}', "not described as a tensor"),
        ({"__metadata__": {"a": 1}}, "no text by name"),
        ({"a": {"dtype": "F32", "shape": [10**18, 10**18], "data_offsets": [0, 8]}}, "which are not at"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}, "has the shape"),
        ({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, "has the shape"),
        ({"a": {"dtype": "C128", "shape": [1], "data_offsets": [0, 8]}}, "is of type C128"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}, "which are not at"),
    ],
)
def test_headers_that_lie(header: object, message: str, tmp_path: Path) -> None:
    path = with_header(tmp_path / "odd.safetensors", header, bytes(8))
    with pytest.raises(WeightsError, match=r"odd\.safetensors: not a safetensors file, or damaged") as error:
        load_stage(path)
    assert message in str(error.value)


def test_files_that_ask_for_much_are_refused_at_once(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = with_header(tmp_path / "many.safetensors", {f"t{n}": empty for n in range(100_001)})
    sparse = with_header(tmp_path / "sparse.safetensors", {})
    os.truncate(sparse, 8 * 1024**3)
    huge = tmp_path / "huge.safetensors"
    huge.write_bytes(struct.pack("<Q", 2**62) + b"{}" * 20)
    began = time.monotonic()
    for path in (many, sparse, huge):
        with pytest.raises(WeightsError, match=path.stem):
            load_stage(path)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("stage", {"crop_shape": [10**6, 10**6, 10**6]}, "16777216 voxels"),
        ("stage", {"crop_shape": [8, 8, True]}, "'crop_shape' must be a whole number"),
        ("stage", {"crop_shape": [8, 8.0, 8]}, "'crop_shape' must be a whole number"),
        ("stage", {"crop_spacing_mm": "2"}, "'crop_spacing_mm' must be a finite number"),
        ("stage", {"crop_spacing_mm": 1e9}, "'crop_spacing_mm' must be"),
        ("stage", {"luck": 1}, "'luck' is no setting"),
        ("stage", {"network": "msreg"}, "which the network has not"),
        ("fusion", {"compact": {"blocks": 10**21}}, "is too large"),
        ("fusion", {"compact": {"blocks": 10**9}}, "'blocks' must be 64 or less"),
        ("fusion", {"compact": {"channels": 1024}}, "has the shape"),
        ("fusion", {"dcfb": {"depths": [10**9], "heads": [2]}}, "from 1 to 64"),
        ("fusion", {"dcfb": 3}, "expected entries by name"),
    ],
)
def test_settings_that_ask_for_what_the_file_has_not(
    kind: str, change: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    source, path = folder / f"{kind}.safetensors", tmp_path / "odd.safetensors"
    held = read_model_file(source)
    stage = replace(held.stages[0], settings=held.stages[0].settings | change)
    save_model_file(replace(held, stages=[stage]), path)
    began = time.monotonic()
    with pytest.raises(WeightsError, match=r"odd\.safetensors: settings and weights do not fit") as error:
        LOADERS[kind](path)
    assert message in str(error.value)
    assert time.monotonic() - began < 5


def test_weights_may_be_read_by_whom_the_umask_allows(folder: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_stage(load_stage(folder / "stage.safetensors"), tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


def test_weights_of_another_kind_say_which(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="a registration network, but a fusion network: for `fuse --method`"):
        load_stage(folder / "fusion.safetensors")
    with pytest.raises(WeightsError, match="not hold pre-trained extractors, but a registration network"):
        load_extractors(folder / "stage.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "last.safetensors", {"progress": "{}"})
    with pytest.raises(WeightsError, match=r"checkpoint of a training run: take best\.safetensors"):
        load_stage(tmp_path / "last.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    network = build_network(SMALL.network, SMALL.crop_shape)
    with torch.no_grad():
        network.get_parameter("head.linear3.bias")[2] = value
    save_stage(Stage(network, SMALL, {}), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"head\.linear3\.bias' holds numbers that are not finite"):
        load_stage(tmp_path / "a.safetensors")


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    for name, load in (("w.safetensors", load_stage), ("w.pth", load_original_checkpoint)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(WeightsError, match="is a pipe, socket or device"):
            load(tmp_path / name)
        with pytest.raises(WeightsError, match="NUL"):
            load(tmp_path / f"a\0{name}")


def test_state_dicts_that_unpack_to_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "LIMIT_BYTES", 2 * 1024**2)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(3 * 1024**2))
    assert (tmp_path / "bomb.pth").stat().st_size < 10_000
    with pytest.raises(WeightsError, match=r"bomb\.pth: holds 0\.0 GiB, over"):
        load_original_checkpoint(tmp_path / "bomb.pth")


def test_a_damaged_state_dict_is_refused_or_read(tmp_path: Path) -> None:
    """Seeded: pickles are read with weights_only, so that damage ends in an error or in numbers."""
    shape = (4, 4, 4)
    state = {"fc3.bias": torch.zeros(6), "fc3.weight": torch.zeros(6, 32)}
    path = tmp_path / "a.pth"
    for new in (True, False):
        torch.save(state, path, _use_new_zipfile_serialization=new)
        for copy in damaged(path.read_bytes(), np.random.default_rng(6), 60):
            path.write_bytes(copy)
            with pytest.raises(WeightsError, match=r"a\.pth"):
                load_original_checkpoint(path, shape)


def test_sizes_of_fusion_networks_have_bounds() -> None:
    with pytest.raises(InputError, match="'heads' must be"):
        DCFBSettings(heads=(0,), depths=(1,))
    with pytest.raises(InputError, match="or less"):
        DCFBSettings(window=99)


@pytest.mark.parametrize("name", network_names())
def test_the_smallest_crop_that_an_error_names_is_one_that_works(name: str) -> None:
    with pytest.raises(InputError, match="its smallest crop is") as error:
        StageSettings(name, (2, 32, 32))
    z, y, x = (int(size) for size in str(error.value).rpartition(" ")[2].split(","))
    network = build_network(StageSettings(name, (z, y, x)).network, (z, y, x), 4.0).eval()
    with torch.no_grad():
        assert bool(network(torch.rand(1, 1, z, y, x), torch.rand(1, 1, z, y, x)).isfinite().all())
    for wrong in ((), (8, 8), (8, 8, 8, 8)):
        with pytest.raises(InputError, match="three axes"):
            check_crop_shape(name, wrong)
