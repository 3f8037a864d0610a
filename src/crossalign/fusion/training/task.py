"""Training of a fusion network: its losses, and the task that the engine trains."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from crossalign.fusion.networks.model_files import (
    FusionModel,
    build_fusion_network,
    current_name,
    fusion_estimates,
    save_fusion_model,
)
from crossalign.fusion.training.dataset import FusionDataset, FusionPatches, draw_patches, insert_lesions
from crossalign.fusion.training.settings import FusionTrainingSettings
from crossalign.similarity import lncc_score, qabf_score, ssim_pair_score, ssim_score
from crossalign.training.data_record import renamed, tensors_record
from crossalign.training.device import autocast, channels_last, choose_precision, settled_precision
from crossalign.training.schedule import cosine_rate, pick_cases, step_seed
from crossalign.training.task import Plan, TrainingTask
from crossalign.types import Volume

MRI_WEIGHT, PET_WEIGHT = 2.0, 1.0
LESION_CONTRAST = 0.7  # fraction of a lesion's contrast to preserve; the average preserves a half
LEAST_CONTRAST = 0.05
VAL_PATCHES = 16  # for each emphasis
FIRST_FRACTION = 1e-3  # of the steps, where the warm-up's rate begins
MEASURE = "val_loss"


def ssim_qabf_loss(fused: Volume, patches: FusionPatches, qabf_weights: tuple[float, float]) -> Tensor:
    """1 - the mean structural similarity to both inputs, plus a weight times 1 - Qabf.

    The weight of each patch depends on its `detail`; patches where neither input has a gradient have no second part.
    """
    total = fused.new_zeros(())
    low, high = qabf_weights
    for number in range(len(fused)):
        one, a, b = (volume[number : number + 1] for volume in (fused, patches.a, patches.b))
        with_a, with_b = ssim_pair_score(one, a, b)
        total = total + 1 - (with_a + with_b) / 2
        qabf = qabf_score(one, a, b)
        if bool(qabf.isfinite()):
            weight = low * (high / low) ** float(patches.detail[number])
            total = total + weight * (1 - qabf)
    return total / len(fused)


def lesion_loss(without: Volume, fused: Volume, patches: FusionPatches) -> Tensor:
    """Square of what lesions lack of LESION_CONTRAST of their contrast; fused without them, and with them.

    Contrast is the mean change within the lesion. A lesion without contrast after clipping does not count.
    """
    lesions = patches.lesions
    if lesions is None:
        return fused.new_zeros(())
    change = lesions.a - patches.a + lesions.b - patches.b
    shown, own = (((v * lesions.mask).flatten(1).sum(1)) for v in (fused - without, change))
    enough = own.abs() > LEAST_CONTRAST * lesions.mask.flatten(1).sum(1)
    fraction = shown / torch.where(enough, own, torch.ones_like(own))
    return torch.where(enough, (LESION_CONTRAST - fraction).clamp(min=0) ** 2, torch.zeros_like(fraction)).mean()


def paper_fusion_loss(fused: Volume, patches: FusionPatches) -> Tensor:
    """2 LNCC(F, MRI) + LNCC(F, PET) + 2 (1 - SSIM)(MRI) + (1 - SSIM)(PET) + 2 L1(MRI) + L1(PET), as published.

    A volume that is flat everywhere has no local correlation; that term is left out then.
    """
    total = fused.new_zeros(())
    for weight, reference in ((MRI_WEIGHT, patches.a), (PET_WEIGHT, patches.b)):
        correlation_loss = 1 - lncc_score(fused, reference)
        if bool(correlation_loss.isfinite()):
            total = total + weight * correlation_loss
        total = total + weight * (1 - ssim_score(fused, reference) + torch.nn.functional.l1_loss(fused, reference))
    return total


class FusionTask(TrainingTask):
    """A fusion network on patches of a dataset; `run_task` trains it.

    The measure is the loss on fixed patches of `val`, half of them balanced, half with detail. `data` records where the
    datasets come from; without it their own content is recorded.
    """

    def __init__(
        self,
        train: FusionDataset,
        val: FusionDataset,
        settings: FusionTrainingSettings,
        data: Mapping[str, object] | None = None,
    ) -> None:
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
        now = renamed(FusionTrainingSettings, saved)
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
        losses = [self._loss((a + b) / 2, patches) for patches in self._val for a, b in [patches.inputs()]]
        return float(torch.stack(losses).mean())

    def fresh_model(self) -> nn.Module:
        """Draw the network from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._settings.seed)
            network = build_fusion_network(self._settings.stage).to(self._device)
        network, one = channels_last(network), self._val[0]
        run = partial(fusion_estimates, network, one.a, one.b, one.detail)
        self._precision = settled_precision(self._settings.precision, self._device, network, run)
        return network

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step, a mean over the estimates of a network that makes several."""
        s = self._settings
        generator = torch.Generator().manual_seed(step_seed(s.seed, step))
        index = pick_cases(len(self._train), s.batch, step, s.seed)
        patches = draw_patches(self._train, index, s.patch, s.augmentation, generator)
        if self._inserts_lesions and float(torch.rand((), generator=generator)) < s.lesion_fraction:
            patches = insert_lesions(patches, generator)
        with torch.random.fork_rng(devices=[]):  # stochastic depth draws from the global generator
            torch.manual_seed(step_seed(s.seed, step))
            return torch.stack([self._loss(fused, patches) for fused in self._estimates(model, patches)]).mean()

    def validate(self, model: nn.Module) -> float:
        """Return the mean loss on the fixed patches."""
        losses = [self._loss(self._estimates(model, patches)[-1], patches) for patches in self._val]
        return float(torch.stack(losses).mean())

    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write the model."""
        save_fusion_model(FusionModel(model, self._settings.stage, notes), path, overwrite=True)

    def _estimates(self, model: nn.Module, patches: FusionPatches) -> list[Tensor]:
        a, b = map(channels_last, patches.inputs())
        with autocast(self._device, self._precision):
            estimates = fusion_estimates(model, a, b, patches.detail.repeat(len(a) // len(patches.a)))
        return [fused.float() for fused in estimates]

    def _loss(self, fused: Tensor, patches: FusionPatches) -> Tensor:
        if self._settings.loss == "paper":
            return paper_fusion_loss(fused, patches)
        without, with_lesions = fused[: len(patches.a)], fused[len(patches.a) :]
        loss = ssim_qabf_loss(without, patches, self._settings.qabf_weights)
        if patches.lesions is None:
            return loss
        return loss + self._settings.lesion_weight * lesion_loss(without, with_lesions, patches)

    def _val_patches(self, val: FusionDataset) -> list[FusionPatches]:
        generator = torch.Generator().manual_seed(step_seed(self._settings.seed))
        patches = []
        for number in range(VAL_PATCHES):
            drawn = draw_patches(val, [number % len(val)], self._settings.patch, None, generator)
            if self._inserts_lesions and number % 2:
                drawn = insert_lesions(drawn, generator)
            patches += [replace(drawn, detail=torch.full_like(drawn.detail, detail)) for detail in (0.0, 1.0)]
        return patches


def _power_rate(highest: float, done: float) -> float:
    """Fall as the paper's does: (1 - e / 500)^0.9."""
    return highest * (1 - min(done, 1.0)) ** 0.9
