"""Settings of contrastive pre-training; they validate themselves and are saved beside the weights."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError, WeightsError
from crossalign.input import parse_json
from crossalign.models import StageSettings
from crossalign.models.extractors import (
    PretrainedExtractors,
    extractors_of,
    feature_map,
    load_extractors,
    put_extractors,
    save_extractors,
)
from crossalign.training.data_record import tensors_record
from crossalign.training.dataset import PairDataset
from crossalign.training.device import choose_precision, settled_precision
from crossalign.training.engine import Plan, Task, cosine_rate, pick_cases, run_task, step_seed
from crossalign.training.sampling import Batch, draw_batch, validation_batches
from crossalign.training.settings import PRECISIONS, Augmentation, check_most
from crossalign.training.tasks.contrastive import (
    Matches,
    Retrieval,
    draw_places,
    find_matches,
    info_nce_loss,
    measure_retrieval,
)
from crossalign.training.tasks.registration import seeded_model

HEADS = ("linear", "mlp", "none")
MOST = {"steps": 10**8, "width": 65_536, "val_every": 10**8, "batch": 65_536, "places": 10**6}


@dataclass(frozen=True)
class PretrainSettings:
    """One pre-training of a network's two extractors. docs/pretraining.md says why each default is what it is.

    The crops start `start_sre_mm` off: at 0 the same place has the same index in both maps, and whatever the start the
    positive is the true place. Of each crop `places` places are contrasted, at a `temperature`; those within
    `margin_mm` of the positive are left out. `head` stands between features and contrast in each modality (`linear`,
    `mlp`, `none`), with `width` outputs. `seen_only` keeps to places where the moving image is not empty. Retrieval
    counts a match within `radius_mm`. `patients` is the share of the training patients that is used.
    """

    stage: StageSettings = field(default_factory=StageSettings)
    steps: int = 1000
    batch: int = 16
    rate: float = 1e-3
    weight_decay: float = 1e-2
    start_sre_mm: tuple[float, float] = (0.0, 0.0)
    temperature: float = 0.1
    places: int = 128
    margin_mm: float = 10.0
    head: str = "linear"
    width: int = 32
    seen_only: bool = True
    radius_mm: float = 10.0
    val_every: int = 100
    average: float = 0.995
    precision: str = "auto"
    seed: int = 0
    patients: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        low, high = self.start_sre_mm
        if not 0 <= low <= high < math.inf:
            raise InputError(f"the starts' SRE runs from 0 or more upwards and is finite, got {self.start_sre_mm} mm")
        for name, least in (("steps", 1), ("width", 1), ("val_every", 1), ("batch", 2), ("places", 2)):
            if getattr(self, name) < least:
                raise InputError(f"'{name}' must be {least} or more, got {getattr(self, name)}")
        check_most(self, MOST)
        for name in ("rate", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"'{name}' must be over 0 and finite, got {getattr(self, name)}")
        for name in ("weight_decay", "margin_mm", "radius_mm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"'{name}' must be 0 or more and finite, got {getattr(self, name)}")
        self._check_shares_and_choices()

    def _check_shares_and_choices(self) -> None:
        if not 0 <= self.average < 1 or not 0 <= self.seed < 2**31 or not 0 < self.patients <= 1:
            raise InputError(
                "'average' must be in [0, 1), 'seed' in [0, 2^31) and 'patients' in (0, 1], "
                f"got {self.average}, {self.seed} and {self.patients}"
            )
        for name, allowed in (("head", HEADS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"'{name}' must be one of {', '.join(allowed)}, got '{getattr(self, name)}'")


MEASURE = "val_top1_miss"


@dataclass(frozen=True)
class PretrainResult:
    """What a run left: the best extractors' file, retrieval of the untrained and of the best network, and the pace.

    `after` is None where the minutes were over before the first validation.
    """

    best: Path
    before: Retrieval
    after: Retrieval | None
    steps: int
    seconds: float
    samples_per_second: float
    finished: bool

    def is_no_better_than_chance(self) -> bool:
        """Tell whether the best extractors find no more places than blind draws do."""
        return self.after is not None and self.after.top1 <= self.after.chance1


def pretrain(  # noqa: PLR0913 (a run is two banks, settings and a folder; the rest is for its caller's comfort)
    train: PairDataset,
    val: PairDataset,
    settings: PretrainSettings,
    folder: Path,
    minutes: float = math.inf,
    watch: Callable[[dict[str, float]], None] | None = None,
    data: Mapping[str, object] | None = None,
) -> PretrainResult:
    """Pre-train in `folder`, or go on from the checkpoint there, for at most `minutes` of this call.

    See `run_task` for what it writes and when it raises; `best.safetensors` holds the extractors alone. The measure is
    the share of validation places whose most similar place is a wrong one. Raises InputError for a network without two
    extractors. `data` records where the banks come from; without it their own content is recorded.
    """
    task = PretrainTask(train, val, settings, data)
    result = run_task(task, folder, minutes, watch)
    after = None
    if math.isfinite(result.measure):
        after = _noted(load_extractors(result.best).notes, result.best)
    return PretrainResult(
        best=result.best,
        before=task.before(),
        after=after,
        steps=result.steps,
        seconds=result.seconds,
        samples_per_second=result.samples_per_second,
        finished=result.finished,
    )


def pretrained_model(weights: PretrainedExtractors, stage: StageSettings, seed: int) -> nn.Module:
    """Draw a stage's network from its seed and put the extractors in; raises WeightsError where they do not fit."""
    model = seeded_model(stage, seed)
    put_extractors(weights, model, stage)
    return model


class ContrastiveNetwork(nn.Module):
    """Two extractors and, behind each, a head that brings features to embeddings of length 1."""

    def __init__(self, model: nn.Module, channels: int, head: str, width: int) -> None:
        super().__init__()
        self.fixed_extractor, self.moving_extractor = extractors_of(model)
        self.fixed_head, self.moving_head = (_head(channels, head, width) for _ in range(2))

    def forward(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two feature maps (b, c, z', y', x') of two crops (b, 1, z, y, x)."""
        return self.fixed_extractor(fixed), self.moving_extractor(moving)

    def embed(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """Bring features (b, n, c) to embeddings (b, n, w)."""
        return F.normalize(self.fixed_head(fixed), dim=-1), F.normalize(self.moving_head(moving), dim=-1)


class PretrainTask(Task):
    """The extractors of a registration network on crop pairs of a bank whose alignment is known."""

    def __init__(
        self, train: PairDataset, val: PairDataset, settings: PretrainSettings, data: Mapping[str, object] | None = None
    ) -> None:
        self._train, self._settings = train, settings
        self._data = tensors_record(train=train.tensors(), val=val.tensors()) if data is None else data
        self._device = train.fixed.device
        self._precision = choose_precision(settings.precision, self._device)
        stage = settings.stage
        self._map = feature_map(seeded_model(stage, settings.seed), stage.crop_shape)
        self._val = validation_batches(val, stage, settings.start_sre_mm, 1, step_seed(settings.seed))[0]

    def plan(self) -> Plan:
        """Return how to train it."""
        s = self._settings
        rate = partial(cosine_rate, s.rate, 1 / s.steps)
        return Plan(s.steps, s.batch, s.weight_decay, s.val_every, s.average, rate, MEASURE)

    def settings(self) -> Mapping[str, object]:
        """Return what is saved beside the weights."""
        return asdict(self._settings)

    def data(self) -> Mapping[str, object]:
        """Return a record of the pairs."""
        return self._data

    def fresh_model(self) -> ContrastiveNetwork:
        """Take the extractors that the stage's network draws from the seed, and heads drawn from it too."""
        s = self._settings
        network = seeded_model(s.stage, s.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            model = ContrastiveNetwork(network, self._map.channels, s.head, s.width)
        model.to(self._device)
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's hints lack it
        pair = self._val.fixed[:1], self._val.moving[:1]
        self._precision = settled_precision(s.precision, self._device, model, lambda: model(*pair))
        return model

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step."""
        s = self._settings
        generator = torch.Generator().manual_seed(step_seed(s.seed, step))
        index = torch.tensor(pick_cases(len(self._train), s.batch, step, s.seed), device=self._device)
        batch = draw_batch(self._train, index, s.stage, s.start_sre_mm, s.augmentation, generator)
        places = draw_places(self._matches(batch), index, s.places, generator)
        fixed, moving = _contrastive(model).embed(*places.pick(*self._features(model, batch)))
        return info_nce_loss(fixed, moving, places, s.temperature, s.margin_mm)

    def validate(self, model: nn.Module) -> float:
        """Return the share of validation places whose most similar place is a wrong one."""
        return 1 - self.retrieval(model).top1

    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write the extractors, with retrieval through the heads and of the features themselves in the notes."""
        found = {name: _text(self.retrieval(model, raw)) for name, raw in _WAYS.items()}
        save_extractors(model, self._settings.stage, notes | found, path, overwrite=True)

    def before(self) -> Retrieval:
        """Measure the untrained network."""
        return self.retrieval(self.fresh_model().eval())

    @torch.no_grad()
    def retrieval(self, model: nn.Module, raw: bool = False) -> Retrieval:
        """Measure a network in eval mode on the validation pairs; `raw` compares the features themselves."""
        tokens = [side.flatten(2).mT for side in self._features(model, self._val)]
        fixed, moving = (F.normalize(side, dim=-1) for side in tokens) if raw else _contrastive(model).embed(*tokens)
        return measure_retrieval(fixed, moving, self._matches(self._val), self._settings.radius_mm)

    def _features(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        form = torch.channels_last_3d
        with torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32):
            fixed, moving = model(
                batch.fixed.contiguous(memory_format=form), batch.moving.contiguous(memory_format=form)
            )
        return fixed.float(), moving.float()

    def _matches(self, batch: Batch) -> Matches:
        s = self._settings
        return find_matches(batch.moving, batch.correction, self._map, s.stage.crop_spacing_mm, s.seen_only)


_WAYS = {"retrieval": False, "retrieval_of_features": True}


def _text(found: Retrieval) -> str:
    """Write what was measured; a share that there is not, such as another case's of one case, is null."""
    return json.dumps({name: None if math.isnan(value) else value for name, value in asdict(found).items()})


def _noted(notes: Mapping[str, str], path: Path) -> Retrieval:
    """Read what `_text` wrote (earlier versions wrote NaN for null); raises WeightsError."""
    values = parse_json(notes.get("retrieval", "{}").replace("NaN", "null"), f"{path}: its retrieval", WeightsError)
    try:
        return Retrieval(**{name: math.nan if value is None else float(value) for name, value in values.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its notes do not hold the retrieval that was measured: train it again") from error


def _contrastive(model: nn.Module) -> ContrastiveNetwork:
    if not isinstance(model, ContrastiveNetwork):
        raise TypeError(f"expected a ContrastiveNetwork, got {type(model).__name__}")
    return model


def _head(channels: int, kind: str, width: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(channels, width)
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, width))
