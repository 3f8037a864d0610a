"""A fingerprint of what a run trains on, so that it does not go on with other images, splits or transforms."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import get_type_hints

from torch import Tensor

from crossalign.images.files.dicom.series import dicom_files
from crossalign.input import check_regular_file, excerpt
from crossalign.models.tensor_files import digest_of
from crossalign.simulation.settings import SimulationSettings

INITIAL_WEIGHTS = "initial weights"  # the entry of the weights that a run begins with
PREPARATION: dict[str, object] = {"preparation": 2}  # crops as registration makes them; before, one more interpolation
DIGITS = 12  # of a file's SHA-256 that are kept, to name what changed; the whole record has a full one
DETAIL_LIMIT = 20_000  # cases up to which each is recorded by itself
LISTED = 6  # changes that an error lists
# Headers whose voxels lie in another file, and where they say so.
DETACHED = {".mhd": rb"ElementDataFile\s*=\s*([^\r\n]+)", ".nhdr": rb"data ?file:\s*([^\r\n]+)"}
OLD_NAMES = {"begins with": INITIAL_WEIGHTS}  # of entries in files of earlier versions
ENTRY_WORDS = {"sha256": "the cases", INITIAL_WEIGHTS: "the weights that it begins with"}
ENTRY_WORDS |= {f"tensors.{name}": f"the dataset of {name} pairs" for name in ("train", "val")}
TWINS = {".hdr": ".img", ".img": ".hdr"}
READ_BYTES = 65536


def cases_record(rows: Iterable[tuple[str, Mapping[str, str | Path | None]]]) -> dict[str, object]:
    """Record cases by name: text as it stands (split, patient), files by their content, in this order."""
    summed, cases = hashlib.sha256(), dict[str, dict[str, str]]()
    for name, row in rows:
        summed.update(json.dumps(name).encode())
        cases[name] = {}
        for column, value in row.items():
            text = file_digest(value) if isinstance(value, Path) else value or ""
            summed.update(json.dumps([column, text]).encode())
            if value:
                cases[name][column] = text[:DIGITS] if isinstance(value, Path) else text
    record: dict[str, object] = {"sha256": summed.hexdigest()}
    return record | ({"cases": cases} if len(cases) <= DETAIL_LIMIT else {})


def tensors_record(**datasets: Mapping[str, Tensor]) -> dict[str, object]:
    """Record datasets, each by the SHA-256 of its tensors."""
    return {"tensors": {name: digest_of(tensors, {}) for name, tensors in datasets.items()}}


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hexadecimal) of a file's content, with that of a file of voxels that it names.

    Of a folder it is that of its DICOM files.
    """
    digests = []
    for part in dicom_files(path, path.name) if path.is_dir() else (path, *detached_files(path)):
        check_regular_file(part)
        with part.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def detached_files(path: Path) -> Iterator[Path]:
    """Find the files of voxels beside a header, lists included: those that exist; a reader complains of the others."""
    suffix = path.suffix.lower()
    names: list[str] = []
    if suffix in TWINS:
        names.append(path.with_suffix(TWINS[suffix]).name)
    elif suffix in DETACHED:
        with path.open("rb") as file:
            header = file.read(READ_BYTES)
        found = re.search(DETACHED[suffix], header, re.IGNORECASE)
        if found is not None and found.group(1).strip().upper().startswith(b"LIST"):
            names += [line.strip() for line in header[found.end() :].decode("utf-8", "replace").splitlines()]
        elif found is not None:
            names.append(found.group(1).decode("utf-8", "replace").strip())
    for name in names:
        other = path.parent / name
        if name and "\0" not in name and other.is_file():
            yield other


def renamed(kind: type, saved: Mapping[str, object]) -> dict[str, object]:
    """Return saved settings of a dataclass by today's names; its `OLD_NAMES` map those of earlier versions."""
    names: Mapping[str, str] = getattr(kind, "OLD_NAMES", {})
    hints, found = get_type_hints(kind), dict[str, object]()
    for old, value in saved.items():
        name = names.get(old, old)
        inner = hints.get(name)
        found[name] = renamed(inner, value) if isinstance(inner, type) and isinstance(value, Mapping) else value
    return found


def todays_record(saved: Mapping[str, object]) -> dict[str, object]:
    """Return the record that a run saved of its data, by today's names."""
    record = {OLD_NAMES.get(name, name): value for name, value in saved.items()}
    simulated = record.get("simulated")
    if isinstance(simulated, Mapping) and isinstance(simulated.get("simulator"), Mapping):
        record["simulated"] = {**simulated, "simulator": renamed(SimulationSettings, simulated["simulator"])}
    return record


def changes(was: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """List what differs between two records or settings, as 'name: was X, now Y'; whole numbers equal themselves.

    At most LISTED are listed, and how many more there are. A changed digest is listed where nothing else says why.
    """
    before, after = (dict(_flat(json.loads(json.dumps(values)))) for values in (was, now))
    names = [name for name in (*before, *(n for n in after if n not in before)) if before.get(name) != after.get(name)]
    names = [name for name in names if name != "sha256"] or names
    if names == ["sha256"] and list(before) != list(after):
        return ["the order of the cases"]
    listed = [_in_words(name, before.get(name), after.get(name)) for name in names]
    more = len(listed) - LISTED
    return listed if more <= 0 else [*listed[:LISTED], f"and {more} more"]


def _flat(values: object, where: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(values, dict) or not values:
        yield where, values
        return
    for name, value in values.items():
        yield from _flat(value, f"{where}.{name}" if where else str(name))


def _in_words(name: str, was: object, now: object) -> str:
    case, _, column = name.removeprefix("cases.").rpartition(".")
    if name.startswith("cases."):
        entry = f"case '{excerpt(case)}', {column}"
        if column not in ("split", "patient") and None not in (was, now):
            return f"{entry}: another file"
        return f"{entry}: was {_word(was)}, now {_word(now)}"
    if name in ENTRY_WORDS:
        return ENTRY_WORDS[name]
    return f"{excerpt(name)}: was {_word(was)}, now {_word(now)}"


def _word(value: object) -> str:
    return "not there" if value is None else excerpt(json.dumps(value))
