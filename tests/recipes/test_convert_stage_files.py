"""Model files of the package are made from stage files of earlier versions, bit by bit, and share stages."""

import json
from pathlib import Path

import torch
from recipes.convert_stage_files import write_model
from tests.models.test_earlier_files import write_stage

from crossalign.models import load_model
from crossalign.models.pretrained import shipped_file, shipped_names

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def test_stage_files_become_models_that_share_a_stage(tmp_path: Path) -> None:
    networks = [write_stage(tmp_path / f"{n}.safetensors", seed=n) for n in range(3)]
    whole = {"arrangement": {"ensemble": [1, 2]}, "run": {"max_passes": 2}, "card": {"name": "whole"}}
    few = {"arrangement": {"cascade": [1, 2]}, "shares_stages_with": ["whole"], "card": {"name": "few"}}
    files = [tmp_path / f"{n}.safetensors" for n in range(3)]
    size = write_model(whole, files[:2], tmp_path / "whole.safetensors")
    assert write_model(few, [files[1], files[2]], tmp_path / "few.safetensors") < 0.7 * size
    model = load_model(tmp_path / "few.safetensors")
    assert model.name == "few"
    for stage, network in zip(model.stages, networks[1:], strict=True):
        for value, other in zip(stage.network.state_dict().values(), network.state_dict().values(), strict=True):
            assert torch.equal(value, other)
    write_model(few | {"card": {"name": "other"}}, [tmp_path / "few.safetensors"], tmp_path / "few.safetensors")
    assert load_model(tmp_path / "few.safetensors").name == "other"


def test_the_recipes_are_those_of_the_shipped_models() -> None:
    names = (*shipped_names(), *shipped_names("fusion"), *shipped_names("recognition"))
    assert sorted(path.stem for path in (RECIPES / "models").iterdir()) == sorted(names)
    for name in names:
        recipe, file = json.loads((RECIPES / "models" / f"{name}.json").read_text()), shipped_file(name)
        assert len(recipe["stages"]) == len(file.stages)
        assert recipe["card"]["limits"] == list(file.card.limits)
        assert recipe["card"]["command"] == file.card.command
        assert recipe.get("run", {}).items() <= file.run.items()
        assert recipe.get("calibration") == file.calibration
