"""Settings that say what is wrong with them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from crossalign.errors import InputError, InputWarning
from crossalign.models import StageSettings
from crossalign.training import NO_AUGMENTATION, STRONG_AUGMENTATION, Augmentation, TrainingSettings
from crossalign.training.device import choose_precision, narrow_map, settled_precision
from crossalign.training.settings import AUGMENTATIONS


def test_the_defaults_are_fine() -> None:
    assert TrainingSettings().augmentation == Augmentation()
    assert Augmentation() != NO_AUGMENTATION


def test_strong_augmentation_varies_at_least_as_much_as_usual() -> None:
    assert {"none": NO_AUGMENTATION, "usual": Augmentation(), "strong": STRONG_AUGMENTATION} == AUGMENTATIONS
    usual = vars(Augmentation())
    assert all(value >= usual[name] for name, value in vars(STRONG_AUGMENTATION).items() if name != "mirror")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial_sre_mm": (-1.0, 5.0)}, "'initial_sre_mm'"),
        ({"initial_sre_mm": (6.0, 5.0)}, "'initial_sre_mm'"),
        ({"initial_sre_mm": (0.0, math.inf)}, "'initial_sre_mm'"),
        ({"initial_sre_mm": (math.nan, 5.0)}, "'initial_sre_mm'"),
        ({"steps": 0}, "'steps' must be 1 or more, got 0"),
        ({"val_every": -2}, "'val_every' must be 1 or more"),
        ({"val_initialisations": 0}, "'val_initialisations'"),
        ({"batch": 0}, "'batch'"),
        ({"batch": 1}, "'batch' must be 2 or more, got 1"),
        ({"rate": 0.0}, "'rate' must be over 0"),
        ({"rate": math.nan}, "'rate' must be over 0"),
        ({"rate": math.inf}, "'rate' must be over 0"),
        ({"ema_decay": 1.0}, r"'ema_decay' must be in \[0, 1\)"),
        ({"weight_decay": -1e-3}, "'weight_decay' must be 0 or more"),
        ({"seed": -1}, "'seed' must be 0 or more"),
        ({"seed": 2**31}, "'seed' must be 2147483647 or less"),
        ({"loss": "mse"}, "'loss' must be one of auto, sre, parameters, guided, got 'mse'"),
        ({"schedule": "step"}, "'schedule' must be one of cosine, paper"),
        ({"precision": "float16"}, "'precision' must be one of auto, float32, bfloat16"),
    ],
)
@pytest.mark.usefixtures("shape_checks_off")  # a wrong choice reaches the code's own check
def test_training_settings(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingSettings(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in vars(Augmentation()) if name != "mirror"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_augmentation(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"'{name}' must be (0 or more|finite|.* or less)"):
        replace(Augmentation(), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("scale", 0.8), ("cutout", 1.5)])
def test_augmentation_has_ends(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"'{name}' must be .* or less"):
        replace(Augmentation(), **{name: value})  # type: ignore[arg-type]


def test_the_guided_loss_is_for_networks_that_match() -> None:
    stage = StageSettings("correspondence-plain")
    assert TrainingSettings(stage, loss="guided").loss == "guided"
    for model in ("attention-reg", "correspondence-fc", "msreg"):
        with pytest.raises(InputError, match=f"needs matches, which '{model}' has not"):
            TrainingSettings(StageSettings(model), loss="guided")


@pytest.mark.parametrize("name", ["steps", "batch", "val_initialisations", "val_every", "synthesised_pairs"])
def test_settings_have_ends(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' must be .* or less"):
        TrainingSettings(**{name: 10**12})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "narrow"),
    [
        (3, 1, (2, 8, 8), True),
        (3, 1, (3, 3, 3), False),
        (5, 1, (4, 4, 4), True),
        ((1, 3, 3), 1, (1, 2, 2), False),
        ((1, 3, 3), (1, 2, 2), (1, 1, 1), True),
        (1, 1, (1, 1, 1), False),
    ],
)
def test_maps_that_are_narrower_than_a_kernel_are_found(
    kernel: int | tuple[int, int, int], stride: int | tuple[int, int, int], size: tuple[int, int, int], narrow: bool
) -> None:
    layer = nn.Sequential(nn.Conv3d(1, 2, kernel, stride, padding=2)).train()
    assert (narrow_map(layer, lambda: layer(torch.zeros(1, 1, *size))) is not None) == narrow
    assert layer.training


def test_bfloat16_gives_way_where_its_gradients_are_wrong() -> None:
    """At 8 x 8 x 8 voxels the weights of 'correspondence' became NaN in the first steps."""
    cpu, layer = torch.device("cpu"), nn.Conv3d(1, 2, 3, padding=1)

    def settled(name: str, size: int) -> torch.dtype:
        return settled_precision(name, cpu, layer, lambda: layer(torch.zeros(1, 1, size, size, size)))

    assert settled("bfloat16", 4) == torch.bfloat16
    with pytest.warns(InputWarning, match="training in float32 instead"):
        assert settled("bfloat16", 2) == torch.float32
    assert settled("auto", 2) == torch.float32
    assert settled("float32", 2) == torch.float32


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert choose_precision("auto", cpu) in (torch.float32, torch.bfloat16)
