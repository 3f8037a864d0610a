"""Contrastive pre-training of a registration network's two extractors: the task that the engine trains."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import WeightsError
from crossalign.input import parse_json
from crossalign.models import StageSettings
from crossalign.models.earlier_files import current_tensor_name
from crossalign.models.extractors import (
    PretrainedExtractors,
    extractors_of,
    feature_map,
    load_extractors,
    put_extractors,
    save_extractors,
)
from crossalign.training.data_record import renamed, tensors_record
from crossalign.training.dataset import PairDataset
from crossalign.training.device import autocast, channels_last, choose_precision, settled_precision
from crossalign.training.pretraining_settings import PretrainingSettings
from crossalign.training.sampling import Batch, draw_batch, validation_batches
from crossalign.training.schedule import cosine_rate, pick_cases, step_seed
from crossalign.training.task import Plan, TrainingTask
from crossalign.training.tasks.contrastive import (
    Matches,
    Retrieval,
    draw_tokens,
    find_matches,
    info_nce_loss,
    measure_retrieval,
)
from crossalign.training.tasks.registration import seeded_network

MEASURE = "val_top1_miss"
RETRIEVALS = {"retrieval": False, "retrieval_of_features": True}  # notes of the best file: of embeddings, of features
OLD_NAMES = {"stranger1": "other_case1"}  # of measures in files of earlier versions


def pretrained_network(weights: PretrainedExtractors, stage: StageSettings, seed: int) -> nn.Module:
    """Draw a stage's network from its seed and put the extractors in; raises WeightsError where they do not fit."""
    network = seeded_network(stage, seed)
    put_extractors(weights, network, stage)
    return network


class ContrastiveNetwork(nn.Module):
    """Two extractors and, behind each, a projection head from features to embeddings of length 1."""

    def __init__(self, network: nn.Module, channels: int, head: str, width: int) -> None:
        super().__init__()
        self.fixed_extractor, self.moving_extractor = extractors_of(network)
        self.fixed_head, self.moving_head = (_head(channels, head, width) for _ in range(2))

    def forward(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two feature maps (b, c, z', y', x') of two crops (b, 1, z, y, x)."""
        return self.fixed_extractor(fixed), self.moving_extractor(moving)

    def embed(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """Project features (b, n, c) to embeddings (b, n, w)."""
        return F.normalize(self.fixed_head(fixed), dim=-1), F.normalize(self.moving_head(moving), dim=-1)


def _head(channels: int, kind: str, width: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(channels, width)
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, width))


class PretrainingTask(TrainingTask):
    """The extractors of a registration network on crop pairs of a dataset whose alignment is known.

    `best.safetensors` holds the extractors alone. The measure is the fraction of validation tokens whose most similar
    token is a wrong one. Raises InputError for a network without two extractors. `data` records where the datasets come
    from; without it their own content is recorded.
    """

    def __init__(
        self,
        train: PairDataset,
        val: PairDataset,
        settings: PretrainingSettings,
        data: Mapping[str, object] | None = None,
    ) -> None:
        self._train, self._settings = train, settings
        self._data = tensors_record(train=train.tensors(), val=val.tensors()) if data is None else data
        self._device = train.fixed.device
        self._precision = choose_precision(settings.precision, self._device)
        stage = settings.stage
        self._map = feature_map(seeded_network(stage, settings.seed), stage.crop_shape)
        self._val = validation_batches(val, stage, settings.initial_sre_mm, 1, step_seed(settings.seed))[0]

    def plan(self) -> Plan:
        """Return how to train it."""
        s = self._settings
        rate = partial(cosine_rate, s.rate, 1 / s.steps)
        return Plan(s.steps, s.batch, s.weight_decay, s.val_every, s.ema_decay, rate, MEASURE)

    def settings(self) -> Mapping[str, object]:
        """Return what is saved beside the weights."""
        return asdict(self._settings)

    def renamed(self, saved: Mapping[str, object]) -> Mapping[str, object]:
        """Return settings that an earlier version saved, by today's names."""
        return renamed(PretrainingSettings, saved)

    def renamed_tensor(self, saved: str) -> str:
        """Return today's name of a weight that an earlier version saved under this name."""
        return current_tensor_name(saved)

    def data(self) -> Mapping[str, object]:
        """Return a record of the pairs."""
        return self._data

    def baseline(self) -> float:
        """Return the measure of random draws."""
        return 1 - self.untrained().chance1

    def fresh_model(self) -> ContrastiveNetwork:
        """Take the extractors that the stage's network draws from the seed, and heads drawn from it too."""
        s = self._settings
        network = seeded_network(s.stage, s.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            model = ContrastiveNetwork(network, self._map.channels, s.head, s.width)
        model = channels_last(model.to(self._device))
        pair = self._val.fixed[:1], self._val.moving[:1]
        self._precision = settled_precision(s.precision, self._device, model, lambda: model(*pair))
        return model

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step."""
        s = self._settings
        generator = torch.Generator().manual_seed(step_seed(s.seed, step))
        index = torch.tensor(pick_cases(len(self._train), s.batch, step, s.seed), device=self._device)
        batch = draw_batch(self._train, index, s.stage, s.initial_sre_mm, s.augmentation, generator)
        tokens = draw_tokens(self._matches(batch), index, s.tokens, generator)
        fixed, moving = _contrastive(model).embed(*tokens.select(*self._features(model, batch)))
        return info_nce_loss(fixed, moving, tokens, s.temperature, s.margin_mm)

    def validate(self, model: nn.Module) -> float:
        """Return the fraction of validation tokens whose most similar token is a wrong one."""
        return 1 - self.retrieval(model).top1

    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write the extractors, with retrieval by embeddings and by the features themselves in the notes."""
        found = {name: _text(self.retrieval(model, raw)) for name, raw in RETRIEVALS.items()}
        save_extractors(model, self._settings.stage, notes | found, path, overwrite=True)

    def untrained(self) -> Retrieval:
        """Measure the untrained network."""
        return self.retrieval(self.fresh_model().eval())

    @torch.no_grad()
    def retrieval(self, model: nn.Module, raw: bool = False) -> Retrieval:
        """Measure a network in eval mode on the validation pairs; `raw` compares the features themselves."""
        tokens = [side.flatten(2).mT for side in self._features(model, self._val)]
        fixed, moving = (F.normalize(side, dim=-1) for side in tokens) if raw else _contrastive(model).embed(*tokens)
        return measure_retrieval(fixed, moving, self._matches(self._val), self._settings.radius_mm)

    def _features(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        with autocast(self._device, self._precision):
            fixed, moving = model(channels_last(batch.fixed), channels_last(batch.moving))
        return fixed.float(), moving.float()

    def _matches(self, batch: Batch) -> Matches:
        s = self._settings
        return find_matches(batch.moving, batch.correction, self._map, s.stage.crop_spacing_mm, s.foreground_only)


def _contrastive(model: nn.Module) -> ContrastiveNetwork:
    if not isinstance(model, ContrastiveNetwork):
        raise TypeError(f"expected a ContrastiveNetwork, got {type(model).__name__}")
    return model


def _text(found: Retrieval) -> str:
    """Write what was measured; what there is not, such as another case's of one case, is null."""
    return json.dumps({name: None if math.isnan(value) else value for name, value in asdict(found).items()})


def read_retrieval(path: Path) -> Retrieval:
    """Read what was measured with the best extractors (earlier versions wrote NaN for null); raises WeightsError."""
    text = load_extractors(path).notes.get("retrieval", "{}").replace("NaN", "null")
    values = parse_json(text, f"{path}: its retrieval", WeightsError)
    try:
        values = {OLD_NAMES.get(name, name): value for name, value in values.items()}
        return Retrieval(**{name: math.nan if value is None else float(value) for name, value in values.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its notes do not hold the retrieval that was measured: train it again") from error
