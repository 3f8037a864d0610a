"""`crossalign models`: what --method may be, and the cards of the models that come in the package."""

from __future__ import annotations

from crossalign.cli.options import Outcome
from crossalign.models.model import model_facts
from crossalign.models.pretrained import shipped_file, shipped_names
from crossalign.registration.methods import PLAIN_METHODS, default_method_name

HEADER = ("name", "for", "network", "MB", "licence", "sha256 of each stage")


def run_models(name: str | None = None) -> Outcome:
    """List every method and the shipped models as a table, or print one model card. Raises CrossalignError."""
    return Outcome(_card_lines(name) if name else _table_lines())


def _table_lines() -> tuple[str, ...]:
    rows: list[tuple[str, ...]] = [HEADER]
    rows += [(name, "registration", "none", "", "", "needs no weights") for name in PLAIN_METHODS]
    for task, default in (("registration", default_method_name()), ("fusion", shipped_names("fusion")[0])):
        rows += [_row(name, task, name == default) for name in shipped_names(task)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return (*lines, "", "* the default. A card, with data, training, metrics and limits: crossalign models NAME")


def _row(name: str, task: str, default: bool) -> tuple[str, ...]:
    file = shipped_file(name)
    digests = " ".join((stage.sha256 or "unknown")[:12] for stage in file.stages)
    network, licence = (text.split(",")[0].replace("`", "") for text in (file.card.network, file.card.licence))
    return (f"{name}{' *' if default else ''}", task, network, f"{file.megabytes():.1f}", licence, digests)


def _card_lines(name: str) -> tuple[str, ...]:
    file = shipped_file(name)
    file.tensors()  # which checks them
    lines = [*file.card.markdown().rstrip().splitlines(), "", "## File", ""]
    lines.append(f"- {file.path.name}: {file.megabytes():.2f} MB")
    lines += [f"- stage {number}: SHA-256 {stage.sha256}" for number, stage in enumerate(file.stages, start=1)]
    if file.task == "registration":
        lines += [f"- {label}: {text}" for label, text in model_facts(file).items()]
    return tuple(lines)
