"""Methods as options configure them: how networks are run, and the settings of the iterative methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from crossalign.cli.options import Given
from crossalign.cli.requests.registration import RegisterRequest
from crossalign.errors import InputError
from crossalign.models.run_settings import RunSettings
from crossalign.registration import Method
from crossalign.registration.iterative.method_settings import (
    MindSettings,
    MutualInformationSettings,
    SurfaceSettings,
)
from crossalign.registration.methods import default_method_name, default_reason


@runtime_checkable
class Configurable(Protocol):
    """A method with settings: `run`."""

    @property
    def run(self) -> Any: ...  # noqa: D102

    def with_run(self, run: Any) -> Method: ...  # noqa: D102


def chosen_method(request: RegisterRequest) -> tuple[str, str]:
    """Return the method's name and why it was chosen, "" where it was asked for."""
    masks = request.fixed_mask is not None, request.moving_mask is not None
    return (request.method, "") if request.method else (default_method_name(*masks), default_reason(*masks))


def configured(
    methods: Sequence[Method],
    run: Given[RunSettings],
    mutual_information: Given[MutualInformationSettings] | None = None,
    mind: Given[MindSettings] | None = None,
    surface: Given[SurfaceSettings] | None = None,
) -> list[Method]:
    """Return the methods with the settings that were given; raises InputError where one is for none of the methods."""
    found = list(methods)
    for kind, given, of in (
        (RunSettings, run, "networks"),
        (MutualInformationSettings, mutual_information, "mi and mi-best"),
        (MindSettings, mind, "mind and mind-best"),
        (SurfaceSettings, surface, "surface"),
    ):
        if given is None or not given.values:
            continue
        suited = [isinstance(method, Configurable) and isinstance(method.run, kind) for method in found]
        if not any(suited):
            names = ", ".join(method.name for method in methods)
            raise InputError(f"{', '.join(given.options())}: is for {of}, which '{names}' is not")
        found = [_laid_over(method, given) if fits else method for method, fits in zip(found, suited, strict=True)]
    return found


def _laid_over(method: Any, given: Given[Any]) -> Method:
    made: Method = method.with_run(given.over(method.run))
    return made
