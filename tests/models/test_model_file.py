"""Model files: what is saved comes back; what is not a model is refused, and nothing of the user's is overwritten."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.networks.originals import scrambled
from torch import Tensor

from crossalign.errors import InputError, OutputError, WeightsError
from crossalign.models import (
    Calibration,
    Card,
    Cascade,
    Ensemble,
    Model,
    RunSettings,
    Stage,
    StageSettings,
    combine,
    load_model,
    load_stage,
    save_model,
    save_stage,
)
from crossalign.models.card import Measurements
from crossalign.models.model_file import MODEL_FORMAT, ModelContents, StageContents, read_model_file, save_model_file
from crossalign.models.tensor_files import SEAL, read_tensor_header, save_tensors
from crossalign.networks import build_network

EIGHT = (8, 8, 8)
SMALL = StageSettings("feature-reg", (8, 9, 10), 2.0, 1.5, "label")


def trained(settings: StageSettings = SMALL) -> Stage:
    model = scrambled(build_network(settings.network, settings.crop_shape))
    return Stage(model, settings, {"val_sre_mm": "4.321", "made of": "ünïcode"})


@pytest.mark.parametrize("name", ["attention-reg", "feature-reg"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_round_trip(name: str, channels_last: bool, tmp_path: Path) -> None:
    made = trained(StageSettings(name, (8, 9, 10), 2.25, 1.75, "label"))
    if channels_last:  # as the training loop holds its weights
        made.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    save_stage(made, tmp_path / "a.safetensors")
    back = load_stage(tmp_path / "a.safetensors")
    assert back.settings == made.settings
    assert back.notes == made.notes
    assert not back.network.training
    assert list(back.network.state_dict()) == list(made.network.state_dict())
    for ours, theirs in zip(back.network.state_dict().values(), made.network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    a, b = torch.rand(2, 1, 8, 9, 10), torch.rand(2, 1, 8, 9, 10)
    with torch.no_grad():
        torch.testing.assert_close(back.network(a, b), made.network(a, b), atol=1e-5, rtol=1e-5)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        save_stage(trained(), path)
    assert path.read_text() == "mine"
    with pytest.raises(OutputError, match="not a folder that exists"):
        save_stage(trained(), tmp_path / "nowhere" / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]
    save_stage(trained(), path, overwrite=True)
    assert load_stage(path).settings == SMALL


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none.safetensors", "no such weight file"), (tmp_path, "is a folder")):
        with pytest.raises(WeightsError, match=message):
            load_stage(path)
    save_file({"a": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match=r"foreign\.safetensors: no model file of crossalign"):
        load_stage(tmp_path / "foreign.safetensors")
    torch.save(trained().network.state_dict(), tmp_path / "pickle.pth")
    with pytest.raises(WeightsError, match=r"pickle\.pth: not a safetensors file"):
        load_stage(tmp_path / "pickle.pth")


@settings(max_examples=25)
@given(fraction=st.floats(0, 0.9999))
def test_truncated_files(fraction: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    save_stage(trained(), folder / "whole.safetensors", overwrite=True)
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(WeightsError, match=r"cut\.safetensors: not a safetensors file, or damaged"):
        load_stage(folder / "cut.safetensors")


def rewritten(
    path: Path, settings: dict[str, object] | None = None, drop: str = "", task: str = "registration"
) -> Path:
    """Write a stage with other settings, without one of its tensors, or for another task; its digests are right."""
    stage = trained()
    tensors = {name: value for name, value in stage.network.state_dict().items() if name != drop}
    save_model_file(ModelContents(task, [StageContents(tensors, settings or stage.settings, stage.notes)]), path)
    return path


SETTINGS = json.loads(json.dumps(asdict(SMALL)))


@pytest.mark.parametrize(
    "change",
    [
        {"network": "attention-reg"},
        {"network": "tomorrows-net"},
        {"crop_shape": [8, 9, 30]},
        {"crop_shape": [8, 9]},
        {"crop_shape": "abc"},
        {"crop_spacing_mm": -1},
        {"fixed_input": "both"},
        {"new_setting": 1},
    ],
)
def test_settings_that_do_not_fit(change: dict[str, object], tmp_path: Path) -> None:
    path = rewritten(tmp_path / "odd.safetensors", SETTINGS | change)
    with pytest.raises(WeightsError, match=r"odd\.safetensors: settings and weights do not fit"):
        load_model(path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"arrangement": 2}, "names stage 2, there are 1"),
        ({"arrangement": {"ensemble": []}}, "needs one trained stage or more"),
        ({"arrangement": {"ensemble": [1], "cascade": [1]}}, "no stage's number and no cascade"),
        ({"arrangement": {"vote": [1]}}, "no stage's number and no cascade"),
        ({"arrangement": True}, "no stage's number and no cascade"),
        ({"run": {"initialisations": "many"}}, "'initialisations' must be a whole number"),
        ({"run": [1]}, "do not fit"),
        ({"calibration": {"base_mm": 1}}, "'calibration.per_dispersion' is missing"),
        ({"card": {"name": 3}}, "'card.name' must be text"),
        ({"task": "cooking"}, "one task of registration, fusion, extractors"),
        ({"stages": []}, "needs 1 to 100 stages"),
        ({"initial_stage": "first"}, "do not fit"),
    ],
)
def test_descriptions_that_do_not_fit(model: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_stage(trained(), path)
    description = json.loads(read_tensor_header(path).metadata["model"]) | model
    save_tensors(load_file(path), {"format": MODEL_FORMAT, "model": json.dumps(description)}, path, overwrite=True)
    with pytest.raises(WeightsError, match=r"odd\.safetensors") as error:
        load_model(path)
    assert message in str(error.value)


def test_a_description_without_a_digest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_stage(trained(), path)
    metadata = {name: text for name, text in read_tensor_header(path).metadata.items() if name != SEAL}
    save_file(load_file(path), path, metadata)
    with pytest.raises(WeightsError, match="it has no digest"):
        load_model(path)


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a.safetensors", drop="head.linear3.bias")
    with pytest.raises(WeightsError, match=r"head\.linear3\.bias"):
        load_model(path)


def test_other_formats_and_tasks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors({"a": torch.zeros(1)}, {"format": "crossalign-model-9"}, path)
    with pytest.raises(WeightsError, match="crossalign-model-9"):
        load_model(path)
    with pytest.raises(WeightsError, match=r"does not hold a registration network, but a fusion network: for `fuse"):
        load_model(rewritten(tmp_path / "b.safetensors", task="fusion"))


def three(arrangement: type[Cascade] | type[Ensemble] = Ensemble) -> Model:
    torch.manual_seed(1)
    stages = tuple(
        Stage(
            build_network("feature-reg", (8, 8, 8)).eval(), StageSettings("feature-reg", (8, 8, 8), mm), {"mm": str(mm)}
        )
        for mm in (2.0, 2.5, 3.0)
    )
    return Model(
        arrangement(stages),
        RunSettings(initialisations=3, max_passes=2, refinement_step=0.5, orientation_correction="auto"),
        Calibration(1.0, 0.5, 0.0, 4.0),
        Card("three", "Three of them.", measured=Measurements(("a", "b"), (("1", "2"),), "made up"), limits=("many",)),
        initial_stage=2,
    )


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_of_several_stages_survives(nested: bool, tmp_path: Path) -> None:
    model = three()
    one, two, last = model.stages
    if nested:
        model = replace(model, arrangement=Cascade((Ensemble((one, Cascade((two, one)))), last)))
    save_model(model, tmp_path / "a.safetensors")
    back = load_model(tmp_path / "a.safetensors")
    assert (back.run, back.calibration, back.card, back.initial_stage) == (
        model.run,
        model.calibration,
        model.card,
        model.initial_stage,
    )
    assert back.arrangement.layout(back.stages) == model.arrangement.layout(model.stages)
    assert [stage.settings for stage in back.stages] == [stage.settings for stage in model.stages]
    assert [stage.notes for stage in back.stages] == [stage.notes for stage in model.stages]
    for ours, theirs in zip(back.stages, model.stages, strict=True):
        for name, value in theirs.network.state_dict().items():
            assert torch.equal(ours.network.state_dict()[name], value)


def tampered(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """Change tensors of a model of three and seal it again, as somebody would who wants to hide it."""
    save_model(three(), path, overwrite=True)
    metadata = {name: text for name, text in read_tensor_header(path).metadata.items() if name != SEAL}
    save_tensors(change(load_file(path)), metadata, path, overwrite=True)
    return path


def test_a_missing_swapped_or_altered_stage_is_named(tmp_path: Path) -> None:
    swap = {"1": "3", "3": "1"}
    missing = tampered(
        tmp_path / "missing.safetensors", lambda held: {n: v for n, v in held.items() if not n.startswith("2.")}
    )
    with pytest.raises(WeightsError, match=r"missing\.safetensors: .*stage 2 of 3 is missing"):
        load_model(missing)
    swapped = tampered(
        tmp_path / "swapped.safetensors", lambda held: {swap.get(n[0], n[0]) + n[1:]: v for n, v in held.items()}
    )
    with pytest.raises(WeightsError, match=r"swapped\.safetensors: .*stage 1 of 3 is not what was written"):
        load_model(swapped)
    altered = tampered(
        tmp_path / "altered.safetensors",
        lambda held: held | {"3.head.linear3.bias": held["3.head.linear3.bias"] + 1e-3},
    )
    with pytest.raises(WeightsError, match=r"altered\.safetensors: .*stage 3 of 3 .*it was altered"):
        load_model(altered)


def test_a_stage_in_anothers_place_is_told_from_an_altered_one(tmp_path: Path) -> None:
    stage = trained()
    other = replace(stage, network=scrambled(build_network(SMALL.network, SMALL.crop_shape), 5).eval())
    save_model(Model(Cascade((stage, other))), tmp_path / "a.safetensors")
    held = load_file(tmp_path / "a.safetensors")
    swap = {"1": "2", "2": "1"}
    metadata = {n: text for n, text in read_tensor_header(tmp_path / "a.safetensors").metadata.items() if n != SEAL}
    swapped = {swap[name[0]] + name[1:]: value for name, value in held.items()}
    save_tensors(swapped, metadata, tmp_path / "a.safetensors", overwrite=True)
    with pytest.raises(WeightsError, match=r"stage 1 of 2 .*: it is stage 2"):
        load_model(tmp_path / "a.safetensors")


def test_one_stage_of_several_is_chosen_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "three.safetensors"
    save_model(three(), path)
    for number, spacing_mm in ((1, 2.0), (2, 2.5), (3, 3.0)):
        assert load_stage(f"{path}:{number}").settings.crop_spacing_mm == spacing_mm
    assert load_stage(path).settings.crop_spacing_mm == 2.5  # its `initial_stage`
    for wrong in ("4", "0"):
        with pytest.raises(InputError, match=r"one of the 3 stages of .*three\.safetensors: write"):
            load_stage(f"{path}:{wrong}")
    for wrong in ("x", ""):
        with pytest.raises(WeightsError, match="no such weight file, and the shipped models are corr"):
            load_stage(f"{path}:{wrong}")


def test_several_files_make_a_cascade_where_none_has_settings_of_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in ("plain", "other", "tuned")]
    save_stage(trained(), paths[0])
    save_stage(trained(), paths[1])
    save_model(Model(trained(), RunSettings(max_passes=2)), paths[2])
    both = load_model(paths[:2])
    assert both.arrangement.layout(both.stages) == {"cascade": [1, 2]}
    assert both.run == RunSettings()
    with pytest.raises(InputError, match="run settings or a calibration of its own"):
        load_model(paths)
    assert load_model(paths, run=RunSettings(max_passes=3)).run.max_passes == 3
    averaged = combine([load_model(path) for path in paths[:2]], Ensemble)
    assert averaged.arrangement.layout(averaged.stages) == {"ensemble": [1, 2]}
    assert combine([three()]).card.name == "three"


def test_a_stage_held_by_another_file_is_found_there_or_named(tmp_path: Path) -> None:
    whole, borrowing = tmp_path / "whole.safetensors", tmp_path / "borrowing.safetensors"
    model = three()
    save_model(model, whole)
    shared = {stage.sha256: whole.name for stage in read_model_file(whole).stages[:2]}
    stages = [StageContents(one.network.state_dict(), one.settings, one.notes) for one in model.stages]
    contents = ModelContents("registration", stages, {"ensemble": [1, 2, 3]})
    save_model_file(contents, borrowing, shared=shared)
    assert borrowing.stat().st_size < 0.5 * whole.stat().st_size
    for ours, theirs in zip(load_model(borrowing).stages, model.stages, strict=True):
        assert ours.settings == theirs.settings
        assert torch.equal(
            ours.network.state_dict()["head.linear3.bias"], theirs.network.state_dict()["head.linear3.bias"]
        )
    save_model(load_model(borrowing), tmp_path / "again.safetensors")  # whole again
    assert len(load_model(tmp_path / "again.safetensors").stages) == 3
    tampered(whole, lambda held: held | {"1.head.linear3.bias": held["1.head.linear3.bias"] + 1})
    with pytest.raises(WeightsError, match=r"borrowing\.safetensors: .*stage 1 of 3 is not what was written"):
        load_model(borrowing)
    whole.unlink()
    with pytest.raises(WeightsError, match=r"stage 1 is held by whole\.safetensors, which is missing"):
        load_model(borrowing)


def test_a_card_is_markdown_made_of_its_facts() -> None:
    text = three().card.markdown()
    assert text.startswith("# Model card: three\n\nThree of them.\n")
    assert "## Measured\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nmade up\n" in text
    assert text.endswith("## Limits\n\n- many\n")
    assert Card().markdown() == "# Model card: unnamed\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "nobody"}, "no network is called 'nobody'"),
        ({"crop_shape": (3, 8, 8)}, "4 voxels or more"),
        ({"crop_spacing_mm": 0.0}, "'crop_spacing_mm' must be over 0"),
        ({"working_spacing_mm": math.nan}, "'working_spacing_mm' must be over 0"),
        ({"fixed_input": "mask"}, "'fixed_input' must be one of image, label"),
    ],
)
@pytest.mark.usefixtures("shape_checks_off")
def test_settings_check_themselves(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StageSettings(**change)  # type: ignore[arg-type]
