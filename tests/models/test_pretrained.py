"""Shipped weights: cards, sizes, sums, and names to files."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from crossalign.errors import InputError, WeightsError
from crossalign.models import pretrained as zoo
from crossalign.models.pretrained import (
    PACKAGE,
    SUMS,
    Shipped,
    card_facts,
    check_shipped,
    model_card,
    recorded_sums,
    sha256_of,
    shipped_fusion_names,
    shipped_names,
    shipped_settings,
    stage_path,
    weight_paths,
)
from crossalign.registration import load_cascade, named_method

NAMES = (*shipped_names(), *shipped_fusion_names())
LARGEST_BYTES = 20_000_000


def test_the_sums_on_record_are_those_of_the_files() -> None:
    files = sorted((PACKAGE / "weights").glob("*.safetensors"))
    right = "\n".join(f"{sha256_of(path)}  {path.name}" for path in files)
    recorded = {path.name: sha256_of(path) for path in files}
    assert dict(recorded_sums()) == recorded, (
        f"weights have changed: cd src/crossalign/models/weights && sha256sum *.safetensors > {SUMS}\n{right}"
    )
    named = {path.name for name in NAMES for path in weight_paths(name)}
    assert named == set(recorded), "a weight file without a name, or a name without a file"


def test_all_weights_together_are_small() -> None:
    assert sum(path.stat().st_size for path in (PACKAGE / "weights").iterdir()) < LARGEST_BYTES


def damaged(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("place", [0, 5000, -1])
def test_a_single_bit_of_damage_is_found(place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(PACKAGE / "weights", tmp_path / "weights")
    monkeypatch.setattr(zoo, "PACKAGE", tmp_path)
    name = shipped_names()[0]
    (path, *_) = weight_paths(name)
    assert path.is_relative_to(tmp_path)
    check_shipped(path)
    damaged(path, place)
    with pytest.raises(WeightsError, match=r"damaged \(SHA-256 .*install crossalign again"):
        named_method(name, torch.device("cpu"))
    path.unlink()
    with pytest.raises(WeightsError, match="are missing"):
        check_shipped(path)
    (tmp_path / "weights" / "other.safetensors").write_text("mine")
    with pytest.raises(WeightsError, match="none on record"):
        check_shipped(tmp_path / "weights" / "other.safetensors")
    (tmp_path / "weights" / SUMS).unlink()
    with pytest.raises(WeightsError, match="SHA256SUMS of the shipped weights is missing"):
        check_shipped(tmp_path / "weights" / "other.safetensors")


def test_every_shipped_name_has_a_card_that_says_what_a_card_must() -> None:
    assert sorted(path.stem for path in (PACKAGE / "cards").iterdir()) == sorted(NAMES)
    for name in NAMES:
        card, facts = model_card(name), card_facts(name)
        assert card.startswith(f"# Model card: {name}\n")
        assert {"network", "input", "data", "command", "licence"} <= set(facts), name
        assert any("hardware" in fact for fact in facts), name
        assert "seed" in facts or "--seed" in facts["command"], name
        assert re.search(r"\d (minutes|hours)", " ".join(facts.values())), name
        for section in ("## Measured", "## Limits"):
            assert section in card, name


def test_unknown_names_list_the_known_ones() -> None:
    for function in (model_card, weight_paths, shipped_settings):
        with pytest.raises(InputError, match=f"called 'nobody': there are {shipped_names()[0]}"):
            function("nobody")


def test_one_stage_of_several_is_chosen_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(zoo.SHIPPED, "two", Shipped(("a.safetensors", "b.safetensors"), begin=2))
    assert stage_path("two:2").name == "b.safetensors"
    assert stage_path("two:1").name == "a.safetensors"
    assert stage_path("two").name == "b.safetensors"
    for wrong in ("two:3", "two:0", "two:", "two:x"):
        with pytest.raises(InputError, match="one of the 2 stages of two: write two:1 or two:2"):
            stage_path(wrong)
    assert stage_path("mine.safetensors") == Path("mine.safetensors")
    for name in shipped_names():
        assert stage_path(name) in weight_paths(name)


def test_shipped_cascades_are_run_as_the_zoo_says() -> None:
    for name in shipped_names():
        cascade = load_cascade(weight_paths(name), torch.device("cpu"), name, shipped_settings(name))
        assert cascade.run == shipped_settings(name)
        assert cascade.settings() == named_method(name, torch.device("cpu")).settings()
