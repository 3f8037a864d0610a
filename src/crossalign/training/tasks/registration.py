"""Training of a registration stage: its losses, and the task that the engine trains."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.models import Stage, StageSettings, save_stage
from crossalign.models.earlier_files import current_tensor_name
from crossalign.models.tensor_files import digest_of
from crossalign.networks.correspondence import Matching
from crossalign.networks.registry import network_entry
from crossalign.training.data_record import INITIAL_WEIGHTS, renamed, tensors_record
from crossalign.training.dataset import PairDataset
from crossalign.training.device import autocast, channels_last, choose_precision, settled_precision
from crossalign.training.processes import Part
from crossalign.training.sampling import Batch, draw_batch, validation_batches
from crossalign.training.schedule import cosine_rate, pick_cases, step_seed
from crossalign.training.settings import TrainingSettings
from crossalign.training.task import Plan, TrainingTask
from crossalign.types import Distances, Parameters, Volume

MATCH_WEIGHT, MASK_WEIGHT, ERROR_WEIGHT = 0.5, 5.0, 0.2  # selected on val, docs/lab/experiments.md
OUTSIDE = 0.05  # weight of a match away from the structure, beside 1 on it
PAPER_DROPS = (120 / 300, 170 / 300, 250 / 300)
MEASURE = "val_sre_mm"


def correction_error_mm(parameters: Parameters, batch: Batch) -> Tensor:
    """SRE (b,) of predicted corrections D: |E D(p) - p| = |D(p) - E^-1(p)|: the initialisation E keeps distances."""
    predicted = Rigid.from_parameters(parameters, torch.zeros(3, device=parameters.device))
    return mean_displacement_mm(predicted, batch.correction, batch.surface_mm)


def sre_loss(parameters: Parameters, batch: Batch) -> Tensor:
    """Mean SRE over the batch, mm: in one unit, and weighing a degree by what it moves."""
    return correction_error_mm(parameters, batch).mean()


def parameters_loss(parameters: Parameters, batch: Batch) -> Tensor:
    """Mean squared error of the raw six parameters, mm and degrees mixed without weights, as the papers have it."""
    target = batch.correction.to_parameters(torch.zeros(3, device=parameters.device))
    return (parameters - target).square().mean()


LOSS = {"sre": sre_loss, "parameters": parameters_loss}


@runtime_checkable
class MatchesTokens(Protocol):
    """A network that matches tokens, segments the structure in both crops and predicts the error of its own answer."""

    @property
    def error_head(self) -> nn.Module:
        """The error-estimation head."""

    def match(self, fixed: Volume, moving: Volume) -> Matching:
        """Match two crops (b, 1, z, y, x) and fit the motion."""

    def expected_sre_mm(self, found: Matching) -> Distances:
        """Return the expected SRE (b,), mm."""


def guided_loss(network: MatchesTokens, found: Matching, batch: Batch) -> Tensor:
    """SRE, and what a pair has beside six numbers to train a correspondence network with.

    Added are the mean distance (Charbonnier) of each match from where the rigid truth maps its token, mostly about the
    structure; the cross-entropy of both segmented structures; and the distance of the expected SRE from the true one,
    which trains the error-estimation head alone. The batch holds masks; those of a case without a moving mask are left
    out.
    """
    error = mean_displacement_mm(found.motion, batch.correction, batch.surface_mm)
    if batch.fixed_mask is None or batch.moving_mask is None:
        raise InputError("the guided loss needs a batch that was drawn with masks")
    expected = (network.expected_sre_mm(found) - error.detach()).abs()
    masks = _mask_loss(found.fixed_structure, batch.fixed_mask) + _mask_loss(found.moving_structure, batch.moving_mask)
    matches = match_error_mm(found, batch.correction, batch.fixed_mask)
    return (error + MATCH_WEIGHT * matches + ERROR_WEIGHT * expected).mean() + MASK_WEIGHT * masks


def match_error_mm(found: Matching, correction: Rigid, fixed_mask: Volume) -> Tensor:
    """Return the mean Charbonnier distance (b,), mm, of matches from the truth, weighted by the mask and its rim."""
    wide = F.max_pool3d(fixed_mask, 3, 1, 1)
    weight = F.avg_pool3d(wide, 2).flatten(1) + OUTSIDE
    squares = (found.matches_mm - correction.apply(found.positions_mm)).square().sum(-1)
    return (((squares + 1).sqrt() - 1) * weight).sum(-1) / weight.sum(-1)


def _mask_loss(logits: Volume, mask: Volume) -> Tensor:
    known = (mask.amin(dim=(1, 2, 3, 4), keepdim=True) >= 0).to(logits)
    each = F.binary_cross_entropy_with_logits(logits, mask.clamp(0, 1), reduction="none")
    return (each * known).mean()


class RegistrationTask(TrainingTask):
    """A registration network on perturbed crop pairs of a dataset.

    Both datasets lie on the training device. `initial` is a network to begin with; unless it only brings pre-trained
    extractors it is the best until something is better. `data` records where the datasets come from; without it their
    own content is recorded. The measure is the validation SRE, mm.
    """

    def __init__(
        self,
        train: PairDataset,
        val: PairDataset,
        settings: TrainingSettings,
        initial: nn.Module | None = None,
        data: Mapping[str, object] | None = None,
    ) -> None:
        self._train, self._settings, self._initial = train, settings, initial
        self._data = tensors_record(train=train.tensors(), val=val.tensors()) if data is None else data
        self._device = train.fixed.device
        self._precision = choose_precision(settings.precision, self._device)
        seed, count = step_seed(settings.seed), settings.val_initialisations
        self._val = validation_batches(val, settings.stage, settings.initial_sre_mm, count, seed)

    def plan(self) -> Plan:
        """Return how to train it."""
        s = self._settings
        rate = partial(_paper_rate, s.rate) if s.schedule == "paper" else partial(cosine_rate, s.rate, 1 / s.steps)
        return Plan(s.steps, s.batch, s.weight_decay, s.val_every, s.ema_decay, rate, MEASURE)

    def settings(self) -> Mapping[str, object]:
        """Return what is saved beside the weights."""
        return asdict(self._settings)

    def renamed(self, saved: Mapping[str, object]) -> Mapping[str, object]:
        """Return settings that an earlier version saved, by today's names, with those that it did not know."""
        default = asdict(TrainingSettings())
        found = {name: default[name] for name in TrainingSettings.LATER} | renamed(TrainingSettings, saved)
        if isinstance(augmentation := found.get("augmentation"), dict):
            augmentation.setdefault("cut_mm", 0.0)  # earlier versions cut nothing
            augmentation.setdefault("outline_mm", 0.0)
        if isinstance(stage := found.get("stage"), dict):
            stage.setdefault("moving_input", "image")
        return found

    def renamed_tensor(self, saved: str) -> str:
        """Return today's name of a weight that an earlier version saved under this name."""
        return current_tensor_name(saved)

    def data(self) -> Mapping[str, object]:
        """Return a record of the pairs, and of the weights that it begins with."""
        if self._initial is None:
            return self._data
        return {**self._data, INITIAL_WEIGHTS: digest_of(self._initial.state_dict(), {})}

    def is_trained(self) -> bool:
        """Tell whether it begins with a whole network; pre-trained extractors alone register nothing."""
        return self._initial is not None and not self._settings.pretrained

    @torch.no_grad()
    def baseline(self) -> float:
        """Return the mean SRE of the validation's initialisations, mm."""
        none = torch.zeros(len(self._val[0].fixed), 6, device=self._device)
        return float(torch.cat([correction_error_mm(none, batch) for batch in self._val]).mean())

    def fresh_model(self) -> nn.Module:
        """Draw the network from the seed, or take over the initial weights."""
        network = seeded_network(self._settings.stage, self._settings.seed)
        if self._initial is not None:
            network.load_state_dict(self._initial.state_dict())
        network = channels_last(network.to(self._device))
        pair = [volume[:1] for volume in (self._val[0].fixed, self._val[0].moving)]
        run = partial(network, *map(channels_last, pair))
        self._precision = settled_precision(self._settings.precision, self._device, network, run)
        return network

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step."""
        return self._loss(model, step, None)

    def loss_of_part(self, model: nn.Module, step: int, part: Part) -> Tensor:
        """Return the loss of a part of a step's batch, which is a mean over its pairs."""
        return self._loss(model, step, part) * part.weight()

    def _loss(self, model: nn.Module, step: int, part: Part | None) -> Tensor:
        s = self._settings
        generator = torch.Generator().manual_seed(step_seed(s.seed, step))
        index = torch.tensor(self.pick(step), device=self._device)
        guided = s.loss == "guided" or (s.loss == "auto" and network_entry(s.stage.network).matches_tokens)
        batch = draw_batch(self._train, index, s.stage, s.initial_sre_mm, s.augmentation, generator, guided)
        batch = batch if part is None else batch.pairs(part.samples())
        if guided:
            return self._guided_loss(model, batch)
        return LOSS["sre" if s.loss == "auto" else s.loss](self._predict(model, batch), batch)

    def pick(self, step: int) -> list[int]:
        """Return the numbers of the training cases of a step."""
        return pick_cases(len(self._train), self._settings.batch, step, self._settings.seed)

    def validate(self, model: nn.Module) -> float:
        """Return the mean SRE from the fixed initialisations, mm."""
        errors = [correction_error_mm(self._predict(model, batch), batch) for batch in self._val]
        return float(torch.cat(errors).mean())

    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write the stage."""
        save_stage(Stage(model, self._settings.stage, notes), path, overwrite=True)

    def _guided_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if not isinstance(model, MatchesTokens):
            raise InputError(f"the loss 'guided' needs matches, which '{self._settings.stage.network}' has not")
        with autocast(self._device, self._precision):
            found = model.match(channels_last(batch.fixed), channels_last(batch.moving))
        return guided_loss(model, found, batch)

    def _predict(self, model: nn.Module, batch: Batch) -> Tensor:
        with autocast(self._device, self._precision):
            parameters: Tensor = model(channels_last(batch.fixed), channels_last(batch.moving))
        return parameters.float()


def seeded_network(stage: StageSettings, seed: int) -> nn.Module:
    """Draw a stage's network from a seed, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return stage.build()


def _paper_rate(highest: float, done: float) -> float:
    """Fall to 0.3 of itself where the paper does: at epochs 120, 170 and 250 of 300."""
    return highest * 0.3 ** sum(done >= drop for drop in PAPER_DROPS)
