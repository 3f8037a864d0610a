"""Training of a fusion network: the task that the engine trains."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.fusion.networks.compact import DCFBCompact
from crossalign.fusion.networks.model_files import (
    FusionModel,
    build_fusion_network,
    current_name,
    fused_by,
    save_fusion_model,
)
from crossalign.fusion.training.dataset import FusionDataset, FusionPatches, draw_patches, insert_lesions
from crossalign.fusion.training.losses import (
    baseline_loss,
    draw_steps,
    invented_gradient_loss,
    lesion_loss,
    outline_loss,
    paper_fusion_loss,
    salience_loss,
    ssim_qabf_loss,
)
from crossalign.fusion.training.settings import FusionTrainingSettings
from crossalign.training.data_record import renamed, tensors_record
from crossalign.training.device import autocast, channels_last, choose_precision, settled_precision
from crossalign.training.schedule import cosine_rate, pick_cases, step_seed
from crossalign.training.task import Plan, TrainingTask

VAL_PATCHES = 16  # for each emphasis
FIRST_FRACTION = 1e-3  # of the steps, where the warm-up's rate begins
MEASURE = "val_loss"
NO_OUTLINE = (
    "outline_weight (--outline-weight) is over 0 and no pair to train on has an outline: name the files in the "
    "manifest's column 'mask' (simulated heads have none), or leave it at 0"
)


class FusionTask(TrainingTask):
    """A fusion network on patches of a dataset; `run_task` trains it.

    The measure is the loss on fixed patches of `val`, half of them balanced, half with detail. `data` records where the
    datasets come from; without it their own content is recorded. Outlines take part where `outline_weight` is over 0.
    Raises InputError where it is, and no pair to train on has one.
    """

    def __init__(
        self,
        train: FusionDataset,
        val: FusionDataset,
        settings: FusionTrainingSettings,
        data: Mapping[str, object] | None = None,
    ) -> None:
        if settings.outline_weight == 0:
            train, val = train.without_outlines(), val.without_outlines()
        elif not train.has_outlines():
            raise InputError(NO_OUTLINE)
        self._train, self._settings = train, settings
        self._data = tensors_record(train=train.tensors(), val=val.tensors()) if data is None else data
        self._device = train.mri[0].device
        self._precision = choose_precision(settings.precision, self._device)
        self._inserts_lesions = settings.loss != "paper" and settings.lesion_weight > 0
        self._val = tuple(self._val_patches(val))

    def plan(self) -> Plan:
        """Return how to train it."""
        s = self._settings
        rate = partial(cosine_rate, s.rate, FIRST_FRACTION) if s.schedule == "cosine" else partial(_power_rate, s.rate)
        return Plan(s.steps, s.batch, s.weight_decay, s.val_every, s.ema_decay, rate, MEASURE)

    def settings(self) -> Mapping[str, object]:
        """Return what is saved beside the weights."""
        return asdict(self._settings)

    def renamed(self, saved: Mapping[str, object]) -> Mapping[str, object]:
        """Return settings that an earlier version saved, by today's names."""
        new = {"outline_weight": 0.0, "baseline_weight": 0.0, "limit_gradient": False}  # there were none
        now = {**new, **renamed(FusionTrainingSettings, saved)}
        return now | {"loss": "ssim-qabf"} if now.get("loss") == "keeping" else now

    def renamed_tensor(self, saved: str) -> str:
        """Return today's name of a weight that an earlier version saved."""
        return current_name(saved)

    def data(self) -> Mapping[str, object]:
        """Return a record of the pairs."""
        return self._data

    @torch.no_grad()
    def baseline(self) -> float:
        """Return the loss of the plain average of both volumes."""
        return self._mean_loss(lambda patches: torch.stack(patches.inputs()).mean(0))

    def fresh_model(self) -> nn.Module:
        """Draw the network from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._settings.seed)
            network = build_fusion_network(self._settings.stage).to(self._device)
        if isinstance(network, DCFBCompact):
            network.limit_gradient = self._settings.limit_gradient
        network, one = channels_last(network), self._val[0]
        run = partial(fused_by, network, one.a, one.b, one.detail)
        self._precision = settled_precision(self._settings.precision, self._device, network, run)
        return network

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step."""
        s = self._settings
        generator = torch.Generator().manual_seed(step_seed(s.seed, step))
        index = pick_cases(len(self._train), s.batch, step, s.seed)
        patches = draw_patches(self._train, index, s.patch_shape, s.augmentation, generator)
        if self._inserts_lesions and float(torch.rand((), generator=generator)) < s.lesion_fraction:
            patches = insert_lesions(patches, generator)
        with torch.random.fork_rng(devices=[]):  # stochastic depth draws from the global generator
            torch.manual_seed(step_seed(s.seed, step))
            fused = self._fused(model, patches)
        return self._loss(fused, patches, generator)

    def validate(self, model: nn.Module) -> float:
        """Return the mean loss on the fixed patches."""
        return self._mean_loss(partial(self._fused, model))

    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write the model."""
        save_fusion_model(FusionModel(model, self._settings.stage, notes), path, overwrite=True)

    def _fused(self, model: nn.Module, patches: FusionPatches) -> Tensor:
        a, b = map(channels_last, patches.inputs())
        with autocast(self._device, self._precision):
            return fused_by(model, a, b, patches.detail.repeat(len(a) // len(patches.a))).float()

    def _mean_loss(self, fused: Callable[[FusionPatches], Tensor]) -> float:
        """Return the mean loss over the fixed patches, of which the same pairs of voxels are compared each time."""
        generator = torch.Generator().manual_seed(step_seed(self._settings.seed))
        losses = [self._loss(fused(patches), patches, generator) for patches in self._val]
        return float(torch.stack(losses).mean())

    def _loss(self, fused: Tensor, patches: FusionPatches, generator: torch.Generator) -> Tensor:
        s = self._settings
        if s.loss == "paper":
            return paper_fusion_loss(fused, patches)
        without, with_lesions = fused[: len(patches.a)], fused[len(patches.a) :]
        loss = ssim_qabf_loss(without, patches, s.qabf_weights)
        if s.salience_weight > 0 or s.outline_weight > 0:
            steps = draw_steps(s.patch_shape, generator)
            loss = loss + s.salience_weight * salience_loss(without, patches.b, steps)
            loss = loss + s.outline_weight * outline_loss(without, patches.outline, steps)
        if s.invented_gradient_weight > 0:
            loss = loss + s.invented_gradient_weight * invented_gradient_loss(without, patches)
        if s.baseline_weight > 0:
            loss = loss + s.baseline_weight * baseline_loss(without, patches)
        if patches.lesions is None:
            return loss
        return loss + s.lesion_weight * lesion_loss(without, with_lesions, patches)

    def _val_patches(self, val: FusionDataset) -> list[FusionPatches]:
        generator = torch.Generator().manual_seed(step_seed(self._settings.seed))
        patches = []
        for number in range(VAL_PATCHES):
            drawn = draw_patches(val, [number % len(val)], self._settings.patch_shape, None, generator)
            if self._inserts_lesions and number % 2:
                drawn = insert_lesions(drawn, generator)
            patches += [replace(drawn, detail=torch.full_like(drawn.detail, detail)) for detail in (0.0, 1.0)]
        return patches


def _power_rate(highest: float, done: float) -> float:
    """Fall as the paper's does: (1 - e / 500)^0.9."""
    return highest * (1 - min(done, 1.0)) ** 0.9
