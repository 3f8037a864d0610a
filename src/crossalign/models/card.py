"""The card of a model: what it is, what it was trained on, how good it is and where it fails."""

from __future__ import annotations

from dataclasses import dataclass

FACT_LABELS = {
    "network": "network",
    "input": "input",
    "data": "data",
    "command": "command",
    "seed": "seed",
    "hardware": "hardware and time",
    "selection": "chosen by",
    "licence": "licence",
    "citation": "cite",
}


@dataclass(frozen=True)
class Measurements:
    """A table of measured errors or scores, and in words on which data and by which command."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    description: str = ""


@dataclass(frozen=True)
class Card:
    """Facts about a model, each a text in Markdown; what is not known is empty.

    `selection` says how the weights were chosen among those of training, `details` are further facts by their labels,
    `expected_error` says how the calibration was fitted and judged.
    """

    name: str = ""
    summary: str = ""
    network: str = ""
    input: str = ""
    data: str = ""
    command: str = ""
    seed: str = ""
    hardware: str = ""
    selection: str = ""
    licence: str = ""
    citation: str = ""
    details: tuple[tuple[str, str], ...] = ()
    measured: Measurements | None = None
    expected_error: str = ""
    limits: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return the card as Markdown."""
        facts = [(label, getattr(self, field)) for field, label in FACT_LABELS.items()]
        rows = tuple((label, text) for label, text in (*facts, *self.details) if text)
        parts = [f"# Model card: {self.name or 'unnamed'}"]
        parts += [self.summary] if self.summary else []
        parts += [_table(("", ""), rows)] if rows else []
        if self.measured is not None:
            parts += ["## Measured", _table(self.measured.columns, self.measured.rows)]
            parts += [self.measured.description] if self.measured.description else []
        if self.expected_error:
            parts += ["## Expected error", self.expected_error]
        if self.limits:
            parts += ["## Limits", "\n".join(f"- {limit}" for limit in self.limits)]
        return "\n\n".join(parts) + "\n"


def _table(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines).replace("|  |", "| |")
