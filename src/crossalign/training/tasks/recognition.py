"""Training of the recognition network: the right one of the candidates, or none."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.models.recognition import save_recognition
from crossalign.models.recognition_settings import RecognitionSettings
from crossalign.networks.recognition import RecognitionNet
from crossalign.training.data_record import tensors_record
from crossalign.training.dataset import PairDataset
from crossalign.training.device import autocast, channels_last, choose_precision
from crossalign.training.recognition_pairs import RecognitionBatch, RecognitionPairs
from crossalign.training.schedule import cosine_rate, pick_cases, step_seed
from crossalign.training.settings import STRONG_AUGMENTATION, Augmentation
from crossalign.training.task import Plan, TrainingTask

NONE_FRACTION = 0.2
MISLED_WEIGHT = 0.5
STRUCTURE_WEIGHT = 1.0
VAL_BATCHES = 4


@dataclass(frozen=True)
class RecognitionTrainingSettings:
    """How the recognition network is trained."""

    network: RecognitionSettings = field(default_factory=RecognitionSettings)
    steps: int = 900
    batch: int = 16
    rate: float = 2e-3
    weight_decay: float = 1e-2
    val_every: int = 100
    ema_decay: float = 0.99
    seed: int = 0
    augmentation: Augmentation = STRONG_AUGMENTATION


class RecognitionTask(TrainingTask):
    """The recognition network on pairs and on other volumes (n, 1, s, s, s); the measure is the validation loss."""

    def __init__(
        self,
        train: PairDataset,
        val: PairDataset,
        others: tuple[Tensor, Tensor],
        settings: RecognitionTrainingSettings,
    ) -> None:
        self._settings, self._device = settings, train.fixed.device
        self._train, self._val = train, val
        self._others = others
        self._pairs = RecognitionPairs(train, others[0], settings.network, settings.augmentation)
        generator = torch.Generator().manual_seed(step_seed(settings.seed))
        judged = RecognitionPairs(val, others[1], settings.network, settings.augmentation)
        indices = [torch.tensor(pick_cases(len(val), settings.batch, step, 0)) for step in range(VAL_BATCHES)]
        self._judged = [judged.draw(index.to(self._device), generator, NONE_FRACTION) for index in indices]
        self._precision = choose_precision("auto", self._device)

    def plan(self) -> Plan:
        """Return how to train it."""
        s = self._settings
        rate = partial(cosine_rate, s.rate, 1 / s.steps)
        return Plan(s.steps, s.batch, s.weight_decay, s.val_every, s.ema_decay, rate, "val_loss")

    def settings(self) -> Mapping[str, object]:
        """Return what is saved beside the weights."""
        return asdict(self._settings)

    def data(self) -> Mapping[str, object]:
        """Return a record of the pairs and volumes."""
        others = {"train_others": {"volumes": self._others[0]}, "val_others": {"volumes": self._others[1]}}
        return tensors_record(train=self._train.tensors(), val=self._val.tensors(), **others)

    def fresh_model(self) -> nn.Module:
        """Draw the network from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._settings.seed)
            network = RecognitionNet(self._settings.network.width)
        return channels_last(network.to(self._device))

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step."""
        s = self._settings
        generator = torch.Generator().manual_seed(step_seed(s.seed, step))
        index = torch.tensor(pick_cases(len(self._train), s.batch, step, s.seed), device=self._device)
        batch = self._pairs.draw(index, generator, NONE_FRACTION)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(s.seed, step))
            return self._loss(model, batch)

    def validate(self, model: nn.Module) -> float:
        """Return the mean loss over fixed batches."""
        return float(torch.stack([self._loss(model, batch) for batch in self._judged]).mean())

    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write the network."""
        save_recognition(model, self._settings.network, path, notes, overwrite=True)

    def _loss(self, model: nn.Module, batch: RecognitionBatch) -> Tensor:
        if not isinstance(model, RecognitionNet):
            raise TypeError(f"expected a recognition network, got {type(model).__name__}")
        fixed, moving = torch.cat((batch.fixed, batch.misled[0])), torch.cat((batch.moving, batch.misled[1]))
        pairs, count = len(batch.fixed), batch.weight_log.numel()
        each = batch.weight_log.shape[1]
        with autocast(self._device, self._precision):
            encoded, fixed_seen = model.fixed_encoder(channels_last(fixed))
            repeated = encoded[:pairs].repeat_interleave(each, 0)
            moving_encoded, moving_seen = model.moving_encoder(channels_last(moving))
            scores = model.compare(torch.cat((repeated, encoded[pairs:])), moving_encoded).float()
        logits = scores[:count].reshape(batch.weight_log.shape) + batch.weight_log.to(scores)
        logits = torch.cat((logits, torch.zeros_like(logits[:, :1])), 1)
        target = torch.where(batch.known.to(logits.device), 0, logits.shape[1] - 1)
        seen = fixed_seen[:pairs].float(), moving_seen[:count:each].float()
        known = batch.known.to(logits.device)
        structure = sum(
            F.binary_cross_entropy_with_logits(one[known], mask[known])
            for one, mask in zip(seen, batch.structures, strict=True)
        )
        mistaken = F.softplus(scores[count:]).mean()
        return F.cross_entropy(logits, target) + MISLED_WEIGHT * mistaken + STRUCTURE_WEIGHT * structure
