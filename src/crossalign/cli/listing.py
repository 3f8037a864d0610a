"""`crossalign models`: what --method may be, and the cards of the weights that come in the package."""

from __future__ import annotations

from crossalign.cli.options import Outcome
from crossalign.models.pretrained import (
    card_facts,
    check_shipped,
    model_card,
    recorded_sums,
    shipped_fusion_names,
    shipped_names,
    shipped_settings,
    weight_paths,
)
from crossalign.registration.methods import PLAIN_METHODS, default_method_name

HEADER = ("name", "for", "network", "MB", "licence", "sha256 of each stage")


def run_models(name: str | None = None) -> Outcome:
    """List every method and the shipped weights as a table, or print one model card. Raises CrossalignError."""
    return Outcome(_card_lines(name) if name else _table_lines())


def _table_lines() -> tuple[str, ...]:
    default = default_method_name()
    rows: list[tuple[str, ...]] = [HEADER]
    rows += [(name, "registration", "none", "", "", "needs no weights") for name in PLAIN_METHODS]
    rows += [_row(name, "registration", name == default) for name in shipped_names()]
    rows += [_row(name, "fusion", name == shipped_fusion_names()[0]) for name in shipped_fusion_names()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return (*lines, "", "* the default. A card, with data, training, metrics and limits: crossalign models NAME")


def _row(name: str, use: str, default: bool) -> tuple[str, ...]:
    paths, sums, facts = weight_paths(name), recorded_sums(), card_facts(name)
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    digests = " ".join(sums.get(path.name, "unknown")[:12] for path in paths)
    network = facts.get("network", "").split(",")[0].replace("`", "")
    licence = facts.get("licence", "").split(",")[0]
    return (f"{name}{' *' if default else ''}", use, network, f"{megabytes:.1f}", licence, digests)


def _card_lines(name: str) -> tuple[str, ...]:
    card = model_card(name)
    lines = [*card.rstrip().splitlines(), "", "## Files", ""]
    for path in weight_paths(name):
        check_shipped(path)
        lines.append(f"- {path.name}: {path.stat().st_size / 1e6:.2f} MB, SHA-256 {recorded_sums()[path.name]}")
    if name in shipped_names():
        settings = shipped_settings(name)
        lines.append(f"- run: {settings.text()}")
        if settings.calibration is not None:
            lines.append(f"- expected SRE: calibrated, trusted up to {settings.calibration.threshold_mm:g} mm")
    return tuple(lines)
