"""Training of a fusion network: its losses, and the task that the engine trains."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from crossalign.fusion.networks.model_files import FusionStage, build_fusion_model, fusion_estimates, save_fusion_stage
from crossalign.fusion.training.dataset import FusionDataset, FusionPatches, draw_patches, plant_lesions
from crossalign.fusion.training.settings import FusionTrainingSettings
from crossalign.similarity import lncc_score, qabf_score, ssim_pair_score, ssim_score
from crossalign.training.data_record import tensors_record
from crossalign.training.device import choose_precision, settled_precision
from crossalign.training.engine import Plan, RunResult, Task, cosine_rate, pick_cases, run_task, step_seed
from crossalign.types import Volume

MRI_WEIGHT, PET_WEIGHT = 2.0, 1.0
KEPT = 0.7  # share of a lesion's contrast; the average keeps a half
LEAST_CONTRAST = 0.05


def keeping_loss(fused: Volume, patches: FusionPatches, transfer: tuple[float, float]) -> Tensor:
    """1 - the mean structural similarity to both inputs, + a weight times the share of gradients lost.

    The weight of each patch follows its emphasis; patches where neither input has a gradient have no second part.
    """
    total = fused.new_zeros(())
    low, high = transfer
    for number in range(len(fused)):
        one, a, b = (volume[number : number + 1] for volume in (fused, patches.a, patches.b))
        of_a, of_b = ssim_pair_score(one, a, b)
        total = total + 1 - (of_a + of_b) / 2
        kept = qabf_score(one, a, b)
        if bool(kept.isfinite()):
            weight = low * (high / low) ** float(patches.emphasis[number])
            total = total + weight * (1 - kept)
    return total / len(fused)


def lesion_loss(bare: Volume, fused: Volume, patches: FusionPatches) -> Tensor:
    """Square of what planted lesions' contrast falls short of KEPT of it; `bare` is fused without, `fused` with them.

    Contrast is the mean change within the lesion. A lesion that clipping left nothing of does not count.
    """
    planted = patches.planted
    if planted is None:
        return fused.new_zeros(())
    change = planted.a - patches.a + planted.b - patches.b
    shown, own = (((v * planted.where).flatten(1).sum(1)) for v in (fused - bare, change))
    enough = own.abs() > LEAST_CONTRAST * planted.where.flatten(1).sum(1)
    share = shown / torch.where(enough, own, torch.ones_like(own))
    return torch.where(enough, (KEPT - share).clamp(min=0) ** 2, torch.zeros_like(share)).mean()


def paper_fusion_loss(fused: Volume, patches: FusionPatches) -> Tensor:
    """2 LNCC(F, MRI) + LNCC(F, PET) + 2 (1 - SSIM)(MRI) + (1 - SSIM)(PET) + 2 L1(MRI) + L1(PET), as published.

    A volume that is flat everywhere has no local correlation; that term is left out then.
    """
    total = fused.new_zeros(())
    for weight, reference in ((MRI_WEIGHT, patches.a), (PET_WEIGHT, patches.b)):
        correlation = 1 - lncc_score(fused, reference)
        if bool(correlation.isfinite()):
            total = total + weight * correlation
        total = total + weight * (1 - ssim_score(fused, reference) + torch.nn.functional.l1_loss(fused, reference))
    return total


VAL_PATCHES = 16  # for each emphasis
FIRST_SHARE = 1e-3  # of the way, where the warm-up's rate begins
MEASURE = "val_loss"


@dataclass(frozen=True)
class FusionTrainingResult:
    """What a run left: the best weights' file, its validation loss beside that of the plain average, and the pace."""

    best: Path
    val_loss: float
    average_loss: float
    steps: int
    seconds: float
    samples_per_second: float
    finished: bool

    def is_worse_than_average(self) -> bool:
        """Tell whether the plain average of both scans would be better than the best weights."""
        return self.average_loss <= self.val_loss < math.inf


def train_fusion(  # noqa: PLR0913 (a run is two banks, settings and a folder; the rest is for its caller's comfort)
    train: FusionDataset,
    val: FusionDataset,
    settings: FusionTrainingSettings,
    folder: Path,
    minutes: float = math.inf,
    watch: Callable[[dict[str, float]], None] | None = None,
    data: Mapping[str, object] | None = None,
) -> FusionTrainingResult:
    """Train one network in `folder`, or go on from the checkpoint there; see `run_task`.

    The measure is the loss on fixed patches of `val`, half of them balanced, half with emphasis on detail. `data`
    records where the banks come from; without it their own content is recorded.
    """
    task = FusionTask(train, val, settings, data)
    result: RunResult = run_task(task, folder, minutes, watch)
    return FusionTrainingResult(
        best=result.best,
        val_loss=result.measure,
        average_loss=task.average_loss(),
        steps=result.steps,
        seconds=result.seconds,
        samples_per_second=result.samples_per_second,
        finished=result.finished,
    )


class FusionTask(Task):
    """A fusion network on patches of a bank."""

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
        self._val = tuple(self._val_patches(val))

    def plan(self) -> Plan:
        """Return how to train it."""
        s = self._settings
        rate = partial(cosine_rate, s.rate, FIRST_SHARE) if s.schedule == "cosine" else partial(_power, s.rate)
        return Plan(s.steps, s.batch, s.weight_decay, s.val_every, s.average, rate, MEASURE)

    def settings(self) -> Mapping[str, object]:
        """Return what is saved beside the weights."""
        return asdict(self._settings)

    def data(self) -> Mapping[str, object]:
        """Return a record of the pairs."""
        return self._data

    def fresh_model(self) -> nn.Module:
        """Draw the network from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._settings.seed)
            model = build_fusion_model(self._settings.stage).to(self._device)
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's hints lack it
        one = self._val[0]
        self._precision = settled_precision(
            self._settings.precision, self._device, model, lambda: fusion_estimates(model, one.a, one.b, one.emphasis)
        )
        return model

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Return the loss of a step, a mean over the guesses of a network that makes several."""
        s = self._settings
        generator = torch.Generator().manual_seed(step_seed(s.seed, step))
        index = pick_cases(len(self._train), s.batch, step, s.seed)
        patches = draw_patches(self._train, index, s.patch, s.augmentation, generator)
        if self._plants() and float(torch.rand((), generator=generator)) < s.planted_share:
            patches = plant_lesions(patches, generator)
        with torch.random.fork_rng(devices=[]):  # stochastic depth draws from the global generator
            torch.manual_seed(step_seed(s.seed, step))
            return torch.stack([self._loss(fused, patches) for fused in self._made(model, patches)]).mean()

    def validate(self, model: nn.Module) -> float:
        """Return the mean loss on the fixed patches."""
        return float(torch.stack([self._loss(self._made(model, patches)[-1], patches) for patches in self._val]).mean())

    def save_best(self, model: nn.Module, path: Path, notes: dict[str, str]) -> None:
        """Write weights and settings."""
        save_fusion_stage(FusionStage(model, self._settings.stage, notes), path, overwrite=True)

    @torch.no_grad()
    def average_loss(self) -> float:
        """Return the loss of the plain average on the same patches."""
        return float(torch.stack([self._loss(_averaged(p), p) for p in self._val]).mean())

    def _plants(self) -> bool:
        return self._settings.loss == "keeping" and self._settings.lesions > 0

    def _made(self, model: nn.Module, patches: FusionPatches) -> list[Tensor]:
        with torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32):
            form = torch.channels_last_3d
            a, b = (volume.contiguous(memory_format=form) for volume in _with_planted(patches))
            made = fusion_estimates(model, a, b, patches.emphasis.repeat(len(a) // len(patches.a)))
        return [fused.float() for fused in made]

    def _loss(self, fused: Tensor, patches: FusionPatches) -> Tensor:
        if self._settings.loss == "paper":
            return paper_fusion_loss(fused, patches)
        bare, planted = fused[: len(patches.a)], fused[len(patches.a) :]
        kept = keeping_loss(bare, patches, self._settings.transfer)
        if patches.planted is None:
            return kept
        return kept + self._settings.lesions * lesion_loss(bare, planted, patches)

    def _val_patches(self, val: FusionDataset) -> list[FusionPatches]:
        generator = torch.Generator().manual_seed(step_seed(self._settings.seed))
        chosen = []
        for number in range(VAL_PATCHES):
            drawn = draw_patches(val, [number % len(val)], self._settings.patch, None, generator)
            if self._plants() and number % 2:
                drawn = plant_lesions(drawn, generator)
            chosen += [replace(drawn, emphasis=torch.full_like(drawn.emphasis, e)) for e in (0.0, 1.0)]
        return chosen


def _with_planted(patches: FusionPatches) -> tuple[Tensor, Tensor]:
    """Return both volumes, those with lesions after those without."""
    if patches.planted is None:
        return patches.a, patches.b
    return torch.cat((patches.a, patches.planted.a)), torch.cat((patches.b, patches.planted.b))


def _averaged(patches: FusionPatches) -> Tensor:
    a, b = _with_planted(patches)
    return (a + b) / 2


def _power(top: float, done: float) -> float:
    """Fall as the paper's does: (1 - e / 500)^0.9."""
    return top * (1 - min(done, 1.0)) ** 0.9
