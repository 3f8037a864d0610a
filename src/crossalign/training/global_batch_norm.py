"""Batch normalisation whose statistics are those of the whole batch, wherever its parts are."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class GlobalBatchNorm(_BatchNorm):
    """What `torch.nn.SyncBatchNorm` does on a GPU, on any device: torch's own is not there on a CPU.

    Mean and variance are summed over the process group, and so are their gradients. Each is computed in float32, the
    variance from values less the mean, as a single process computes it.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (torch's name)
        if input.ndim < 2:
            raise ValueError(f"expected a batch with channels, got {input.ndim} axes")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalise (b, c, ...)."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        axes, shape = [0, *range(2, values.ndim)], (1, -1, *[1] * (values.ndim - 2))
        total = _summed(torch.cat((values.sum(axes), values.new_tensor([values.numel() / values.shape[1]]))))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        centred = values - mean.reshape(shape)
        variance = _summed(centred.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale.reshape(shape) + self.bias.reshape(shape)).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Let the running statistics follow."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(variance, factor)


class _Sum(torch.autograd.Function):
    """The sum over the processes: each one's result depends on every one's values, and so gradients are summed too."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        """Sum the values."""
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        """Sum the gradients."""
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed


def _summed(values: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return summed


def synchronise_norms(model: nn.Module) -> None:
    """Put `torch.nn.SyncBatchNorm` (on a GPU) or GlobalBatchNorm in place of each batch normalisation in a model.

    Their parameters and buffers are those of the layers that they replace. Needs a process group.
    """
    if not dist.is_initialized():
        raise RuntimeError("batch normalisation over processes needs a process group")
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, _BatchNorm) and not isinstance(layer, (GlobalBatchNorm, nn.SyncBatchNorm)):
                setattr(parent, name, _synchronised(layer))


def _synchronised(layer: _BatchNorm) -> nn.Module:
    if layer.weight is not None and layer.weight.device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(layer)  # type: ignore[no-untyped-call]
        return converted
    new = GlobalBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    new.weight, new.bias = layer.weight, layer.bias
    new.running_mean, new.running_var = layer.running_mean, layer.running_var
    new.num_batches_tracked = layer.num_batches_tracked
    return new.train(layer.training)
