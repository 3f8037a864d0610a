"""A trained network of the moving image alone, given the moving mask as well."""

from dataclasses import replace

import torch

from crossalign.models.arrangement import Stage

STEM = "moving_extractor.stem.0.weight"  # (f, 8 c, 3, 3, 3), the cells of the image before those of the mask


def with_moving_mask(stage: Stage) -> Stage:
    """Return the stage with a second channel of the moving crop, whose weights are 0: it answers as before.

    To train on from there. Raises InputError for a network that cannot have one; a stage that has one stays as it is.
    """
    if stage.settings.takes_moving_mask():
        return stage
    settings = replace(stage.settings, moving_input="image-label")
    network, weights = settings.build(), dict(stage.network.state_dict())
    weights[STEM] = torch.cat((weights[STEM], torch.zeros_like(weights[STEM])), dim=1)
    network.load_state_dict(weights)
    device = weights[STEM].device
    return Stage(network.to(device, weights[STEM].dtype).train(stage.network.training), settings, stage.notes)
