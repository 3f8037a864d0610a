"""Training of a registration stage: its losses, and the task that the engine trains."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.models import Stage, StageSettings, save_stage
from crossalign.models.tensor_files import digest_of
from crossalign.networks import build_network
from crossalign.networks.correspondence import CorrespondenceReg, Matching
from crossalign.training.data_record import BEGINS_WITH, tensors_record
from crossalign.training.dataset import PairDataset
from crossalign.training.device import choose_precision, settled_precision
from crossalign.training.engine import Plan, Task, cosine_rate, pick_cases, run_task, step_seed
from crossalign.training.sampling import Batch, draw_batch, validation_batches
from crossalign.training.settings import TrainingSettings
from crossalign.types import Parameters, Volume

MATCH_WEIGHT, GLAND_WEIGHT, DOUBT_WEIGHT = 0.5, 5.0, 0.2  # chosen on val, docs/experiments.md
OUTSIDE = 0.05  # weight of a match away from the gland, beside 1 on it


def correction_error_mm(parameters: Parameters, batch: Batch) -> Tensor:
    """SRE (b,) of predicted corrections: |E D(p) - p| = |D(p) - E^-1(p)|, since the start E keeps distances."""
    predicted = Rigid.from_parameters(parameters, torch.zeros(3, device=parameters.device))
    return mean_displacement_mm(predicted, batch.correction, batch.surface_mm)


def sre_loss(parameters: Parameters, batch: Batch) -> Tensor:
    """Mean SRE over the batch, mm: in one unit, and weighing a degree by what it moves."""
    return correction_error_mm(parameters, batch).mean()


def parameters_loss(parameters: Parameters, batch: Batch) -> Tensor:
    """Mean squared error of the raw six parameters, mm and degrees mixed without weights, as the papers have it."""
    target = batch.correction.to_parameters(torch.zeros(3, device=parameters.device))
    return (parameters - target).square().mean()


def guided_loss(model: CorrespondenceReg, found: Matching, batch: Batch) -> Tensor:
    """SRE, and what tells a correspondence network more about one pair than six numbers do.

    Added are the mean distance (Charbonnier) of each match from where the rigid truth puts its place, mostly about the
    gland; the cross-entropy of both marked glands; and how far the expected SRE is from the true one, which teaches the
    expectation alone. The batch holds glands; those of a case without a moving mask are left out.
    """
    error = mean_displacement_mm(found.motion, batch.correction, batch.surface_mm)
    if batch.fixed_gland is None or batch.moving_gland is None:
        raise InputError("the guided loss needs a batch that was drawn with glands")
    doubt = (model.expected_sre_mm(found) - error.detach()).abs()
    glands = _marking_loss(found.fixed_gland, batch.fixed_gland) + _marking_loss(found.moving_gland, batch.moving_gland)
    matches = match_error_mm(found, batch.correction, batch.fixed_gland)
    return (error + MATCH_WEIGHT * matches + DOUBT_WEIGHT * doubt).mean() + GLAND_WEIGHT * glands


def match_error_mm(found: Matching, correction: Rigid, fixed_gland: Volume) -> Tensor:
    """Return the mean Charbonnier distance (b,), mm, of matches from the truth, weighted by the gland and its rim."""
    wide = F.max_pool3d(fixed_gland, 3, 1, 1)
    weight = F.avg_pool3d(wide, 2).flatten(1) + OUTSIDE
    left = (found.matches_mm - correction.apply(found.places_mm)).square().sum(-1)
    return (((left + 1).sqrt() - 1) * weight).sum(-1) / weight.sum(-1)


def _marking_loss(logits: Volume, gland: Volume) -> Tensor:
    known = (gland.amin(dim=(1, 2, 3, 4), keepdim=True) >= 0).to(logits)
    each = F.binary_cross_entropy_with_logits(logits, gland.clamp(0, 1), reduction="none")
    return (each * known).mean()


LOSS = {"sre": sre_loss, "parameters": parameters_loss}
PAPER_DROPS = (120 / 300, 170 / 300, 250 / 300)
MEASURE = "val_sre_mm"


@dataclass(frozen=True)
class TrainingResult:
    """What a run left: the best weights' file, its validation SRE (mm) beside that of the starts, and the pace.

    `best_step` is the step of the best weights; 0 where nothing was better than the weights that the run began with.
    """

    best: Path
    best_sre_mm: float
    best_step: int
    start_sre_mm: float
    steps: int
    seconds: float
    samples_per_second: float
    finished: bool

    def is_worse_than_initial(self) -> bool:
        """Tell whether the best weights leave more than they were given: no registration at all would be better."""
        return self.start_sre_mm <= self.best_sre_mm < math.inf


def train_stage(  # noqa: PLR0913 (a run is two banks, settings and a folder; the rest is for its caller's comfort)
    train: PairDataset,
    val: PairDataset,
    settings: TrainingSettings,
    folder: Path,
    minutes: float = math.inf,
    initial: nn.Module | None = None,
    watch: Callable[[dict[str, float]], None] | None = None,
    data: Mapping[str, object] | None = None,
) -> TrainingResult:
    """Train one stage in `folder`, or go on from the checkpoint there, for at most `minutes` of this call.

    See `run_task` for what it writes and when it raises; the measure is the validation SRE, mm. Both banks lie on the
    training device. `initial` is a network to start from; unless it only brings pre-trained extractors it is kept as
    the best until something is better. `watch` is told of every step. `data` records where the banks come from; without
    it their own content is recorded. Where `minutes` are over before the first validation there is no best file yet,
    and its SRE is infinite.
    """
    task = RegistrationTask(train, val, settings, initial, data)
    result = run_task(task, folder, minutes, watch)
    return TrainingResult(
        best=result.best,
        best_sre_mm=result.measure,
        best_step=result.best_step,
        start_sre_mm=task.start_sre_mm(),
        steps=result.steps,
        seconds=result.seconds,
        samples_per_second=result.samples_per_second,
        finished=result.finished,
    )


class RegistrationTask(Task):
    """A registration network on perturbed crop pairs of a bank."""

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
        seed = step_seed(settings.seed)
        self._val = validation_batches(val, settings.stage, settings.start_sre_mm, settings.val_starts, seed)

    def plan(self) -> Plan:
        """Return how to train it."""
        s = self._settings
        rate = partial(_paper_rate, s.rate) if s.schedule == "paper" else partial(cosine_rate, s.rate, 1 / s.steps)
        return Plan(s.steps, s.batch, s.weight_decay, s.val_every, s.average, rate, MEASURE)

    def settings(self) -> Mapping[str, object]:
        """Return what is saved beside the weights."""
        later = {"pretrained": "", "patients": 1.0, "recombined": 0, "header_turn_deg": 0, "shapes_share": 0.0}
        # left out where not used: runs from before they existed go on
        return {name: value for name, value in asdict(self._settings).items() if value != later.get(name, math.nan)}

    def data(self) -> Mapping[str, object]:
        """Return a record of the pairs, and of the weights that it begins with."""
        if self._initial is None:
            return self._data
        return {**self._data, BEGINS_WITH: digest_of(self._initial.state_dict(), {})}

    def has_begun(self) -> bool:
        """Tell whether it begins with a whole network; pre-trained extractors alone register nothing."""
        return self._initial is not None and not self._settings.pretrained

    def fresh_model(self) -> nn.Module:
        """Draw the network from the seed, or take over the initial weights."""
        model = seeded_model(self._settings.stage, self._settings.seed)
        if self._initial is not None:
            model.load_state_dict(self._initial.state_dict())
        model.to(self._device)
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's hints lack it
        pair = [volume[:1] for volume in _channels_last(self._val[0])]
        self._precision = settled_precision(self._settings.precision, self._device, model, lambda: model(*pair))
        return model

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step."""
        s = self._settings
        generator = torch.Generator().manual_seed(step_seed(s.seed, step))
        index = torch.tensor(pick_cases(len(self._train), s.batch, step, s.seed), device=self._device)
        guided = s.loss == "guided" or (s.loss == "auto" and isinstance(model, CorrespondenceReg))
        batch = draw_batch(self._train, index, s.stage, s.start_sre_mm, s.augmentation, generator, guided)
        if guided:
            return self._guided_loss(model, batch)
        return LOSS["sre" if s.loss == "auto" else s.loss](self._predict(model, batch), batch)

    def validate(self, model: nn.Module) -> float:
        """Return the mean SRE on the fixed starts, mm."""
        errors = [correction_error_mm(self._predict(model, batch), batch) for batch in self._val]
        return float(torch.cat(errors).mean())

    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write the stage."""
        save_stage(Stage(model, self._settings.stage, notes), path, overwrite=True)

    def start_sre_mm(self) -> float:
        """Return the mean SRE of the validation's starts, mm."""
        none = torch.zeros(len(self._val[0].fixed), 6, device=self._device)
        return float(torch.cat([correction_error_mm(none, batch) for batch in self._val]).mean())

    def _guided_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if not isinstance(model, CorrespondenceReg):
            raise InputError("the loss 'guided' needs matches, which only the network 'correspondence' has")
        with self._autocast():
            found = model.match(*_channels_last(batch))
        return guided_loss(model, found, batch)

    def _predict(self, model: nn.Module, batch: Batch) -> Tensor:
        with self._autocast():
            parameters: Tensor = model(*_channels_last(batch))
        return parameters.float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32)


def _channels_last(batch: Batch) -> tuple[Tensor, Tensor]:
    form = torch.channels_last_3d
    return batch.fixed.contiguous(memory_format=form), batch.moving.contiguous(memory_format=form)


def seeded_model(stage: StageSettings, seed: int) -> nn.Module:
    """Draw a stage's network from a seed, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(stage.network, stage.crop_shape, stage.crop_spacing_mm)


def _paper_rate(top: float, done: float) -> float:
    """Fall to 0.3 of itself where the paper does: at epochs 120, 170 and 250 of 300."""
    return top * 0.3 ** sum(done >= drop for drop in PAPER_DROPS)
