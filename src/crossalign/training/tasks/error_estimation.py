"""Teaching a finished correspondence network when to doubt itself: far starts, and crops turned as no patient lies."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, mean_displacement_mm, quarter_turn
from crossalign.models import Stage
from crossalign.networks.correspondence import CorrespondenceReg
from crossalign.training.dataset import PairDataset
from crossalign.training.engine import pick_cases, step_seed
from crossalign.training.sampling import Batch, draw_batch
from crossalign.training.settings import Augmentation

TURNS = 4
USUAL = Augmentation()


@dataclass(frozen=True)
class ErrorHeadSettings:
    """How the expectation is taught: `far_sre_mm` is the range of the starts, `turned_share` of the crops are turned.

    Crops are turned by 90, 180 or 270 degrees about z, both alike, as files are whose headers name the axes wrongly.
    """

    steps: int = 200
    batch: int = 16
    rate: float = 5e-3
    far_sre_mm: tuple[float, float] = (0.0, 30.0)
    turned_share: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.far_sre_mm
        if self.steps < 1 or self.batch < 2 or not 0 < self.rate < 1 or not 0 <= self.turned_share <= 1:
            raise InputError(f"the doubt's settings are out of range: {self}")
        if not 0 <= low <= high < 200:
            raise InputError(f"the starts' SRE runs from 0 or more upwards, got {self.far_sre_mm} mm")


def train_error_head(
    stage: Stage, dataset: PairDataset, settings: ErrorHeadSettings, augmentation: Augmentation = USUAL
) -> tuple[float, ...]:
    """Train the expected SRE of a stage's network alone, in place; return the loss (mm) of each step.

    The matches and the fit stay exactly as they are. Raises InputError for a network that has no such expectation.
    """
    model = stage.network
    if not isinstance(model, CorrespondenceReg):
        raise InputError(f"'{stage.settings.network}' has no expectation to teach: only 'correspondence' has")
    model.eval()
    model.doubt.train()
    optimizer = torch.optim.AdamW(model.doubt.parameters(), settings.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    losses = []
    for step in range(settings.steps):
        generator = torch.Generator().manual_seed(step_seed(settings.seed, step))
        cases = pick_cases(len(dataset), settings.batch, step, settings.seed)
        index = torch.tensor(cases, device=dataset.fixed.device)
        batch = draw_batch(dataset, index, stage.settings, settings.far_sre_mm, augmentation, generator)
        loss = _loss(model, turned_batch(batch, _turns(settings, generator)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    model.eval()
    return tuple(losses)


def turned_batch(batch: Batch, quarters: Tensor) -> Batch:
    """Turn each pair's crops about z by so many quarter turns (b,), both alike, and the answer with them."""
    device = batch.fixed.device
    rotation = torch.stack([quarter_turn(int(number)) for number in quarters]).to(device, torch.float32)
    correction = Rigid(
        rotation @ batch.correction.rotation @ rotation.mT,
        (rotation @ batch.correction.translation_mm[..., None])[..., 0],
    )

    def turned(volumes: Tensor) -> Tensor:
        # From x to y: the last axis is x, the one before it y.
        pairs = zip(volumes, quarters.tolist(), strict=True)
        return torch.stack([torch.rot90(volume, int(number), (-1, -2)) for volume, number in pairs])

    return Batch(turned(batch.fixed), turned(batch.moving), correction, batch.surface_mm @ rotation.mT)


def _turns(settings: ErrorHeadSettings, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(settings.batch, generator=generator) < settings.turned_share
    return torch.randint(1, TURNS, (settings.batch,), generator=generator) * chosen


def _loss(model: CorrespondenceReg, batch: Batch) -> Tensor:
    with torch.no_grad():
        found = model.match(batch.fixed, batch.moving)
        error = mean_displacement_mm(found.motion, batch.correction, batch.surface_mm)
    return (model.expected_sre_mm(found) - error).abs().mean()
