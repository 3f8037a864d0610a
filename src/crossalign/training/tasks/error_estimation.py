"""Training of the error-estimation head alone, from far initialisations and on crops that are rotated wrongly."""

import torch
from torch import Tensor

from crossalign.errors import InputError
from crossalign.geometry import Rigid, mean_displacement_mm, quarter_turn
from crossalign.models import Stage
from crossalign.training.dataset import PairDataset
from crossalign.training.sampling import Batch, draw_batch
from crossalign.training.schedule import pick_cases, step_seed
from crossalign.training.settings import Augmentation, ErrorHeadSettings
from crossalign.training.tasks.registration import MatchesTokens

QUARTERS = 4
USUAL = Augmentation()


def train_error_head(
    stage: Stage, dataset: PairDataset, settings: ErrorHeadSettings, augmentation: Augmentation = USUAL
) -> tuple[float, ...]:
    """Train the error-estimation head of a stage's network alone, in place; return the loss (mm) of each step.

    The matches and the fit stay exactly as they are. Raises InputError for a network without such a head.
    """
    network = stage.network
    if not isinstance(network, MatchesTokens):
        raise InputError(f"'{stage.settings.network}' has no error-estimation head: only 'correspondence' has")
    network.eval()
    network.error_head.train()
    optimizer = torch.optim.AdamW(network.error_head.parameters(), settings.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    losses = []
    for step in range(settings.steps):
        generator = torch.Generator().manual_seed(step_seed(settings.seed, step))
        cases = pick_cases(len(dataset), settings.batch, step, settings.seed)
        index = torch.tensor(cases, device=dataset.fixed.device)
        batch = draw_batch(dataset, index, stage.settings, settings.initial_sre_mm, augmentation, generator)
        is_rotated = torch.rand(settings.batch, generator=generator) < settings.rotated_fraction
        quarters = torch.randint(1, QUARTERS, (settings.batch,), generator=generator) * is_rotated
        loss = _loss(network, rotated_batch(batch, quarters))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    network.eval()
    return tuple(losses)


def rotated_batch(batch: Batch, quarters: Tensor) -> Batch:
    """Rotate each pair's crops about z by so many quarter turns (b,), both alike, and the answer with them."""
    rotation = torch.stack([quarter_turn(int(number)) for number in quarters]).to(batch.fixed.device, torch.float32)
    correction = Rigid(
        rotation @ batch.correction.rotation @ rotation.mT,
        (rotation @ batch.correction.translation_mm[..., None])[..., 0],
    )

    def rotated(volumes: Tensor) -> Tensor:
        # From x to y: the last axis is x, the one before it y.
        pairs = zip(volumes, quarters.tolist(), strict=True)
        return torch.stack([torch.rot90(volume, int(number), (-1, -2)) for volume, number in pairs])

    return Batch(rotated(batch.fixed), rotated(batch.moving), correction, batch.surface_mm @ rotation.mT)


def _loss(network: MatchesTokens, batch: Batch) -> Tensor:
    with torch.no_grad():
        found = network.match(batch.fixed, batch.moving)
        error = mean_displacement_mm(found.motion, batch.correction, batch.surface_mm)
    return (network.expected_sre_mm(found) - error).abs().mean()
