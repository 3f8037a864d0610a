"""Call every public function with values of wrong types, and print as JSON what does not end in a clear error.

A program of its own: the tests check annotations themselves, and users meet the package without that.
"""

import ast
import inspect
import json
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

import torch

import crossalign as ca
from crossalign.fusion.methods import named_fusion_method
from crossalign.registration import Problem

WRONG: tuple[Any, ...] = (object(), 1.5, b"bytes", {"a": 1}, [1, 2])
SAYS_WHAT_WAS_WANTED = ("expected", "must be", "should be")


def public_functions() -> dict[str, Callable[..., Any]]:
    """Return the functions of the package's stub, by name."""
    stub = ast.parse((Path(ca.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [part for part in stub.body if isinstance(part, ast.ImportFrom)]
    names = [one.asname or one.name for part in imports for one in part.names]
    found = {name: getattr(ca, name) for name in names}
    return {name: one for name, one in found.items() if inspect.isfunction(one)}


def right_values(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return for each function what its parameters may be; a new function needs its line."""
    grid = ca.Grid((8, 9, 10), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    image = ca.Image(torch.rand(grid.shape, generator=torch.Generator().manual_seed(0)), grid)
    mask = ca.LabelMap(torch.ones(grid.shape, dtype=torch.int64), grid)
    method, still = ca.named_method("identity"), ca.Rigid.identity()
    network = ca.named_method("correspondence-image")
    result = ca.register(image, image, method, still, mask)
    path = folder / "image.nii.gz"
    ca.write_image(image, path)
    pair: dict[str, Any] = {"fixed": image, "moving": image}
    masks: dict[str, Any] = {"fixed_mask": mask, "moving_mask": mask}
    return {
        "read_manifest": {"path": path, "split": None},
        "evaluate": {"cases": [], "methods": [method], "initialisations": "8", "count": 1, "seed": 0},
        "explain": {"problem": Problem(image, image, still), "method": network, "points_mm": None, "steps": 2},
        "fuse": {"a": image, "b": image, "method": named_fusion_method("average"), "a_to_b": None, "b_unit": ""},
        "named_fusion_method": {"name": "average", "emphasis": None, "device": None},
        "as_image": {"source": image, "name": "image"},
        "as_mask": {"source": mask, "name": "mask"},
        "read_image": {"path": path, "memory_limit_bytes": None, "series": None},
        "read_label_map": {"path": path, "memory_limit_bytes": None},
        "read_transform": {"path": path},
        "to_metatensor": {"image": image},
        "to_nibabel": {"image": image},
        "to_simpleitk": {"image": image},
        "write_dicom_series": {
            "image": image,
            "folder": folder / "dicom",
            "reference": None,
            "source": None,
            "description": "made",
            "identity": "keep",
        },
        "write_image": {"image": image, "path": folder / "new.nii.gz"},
        "write_label_map": {"label_map": mask, "path": folder / "labels.nii.gz"},
        "write_transform": {"fixed_to_moving": still, "path": folder / "new.tfm"},
        "load_model": {"source": path, "device": "cpu", "run": None},
        "named_method": {"name": "identity", "device": "cpu"},
        "register": {**pair, "method": method, "initial": still, **masks, "prior": None, "orientation": None},
        "show": {"result": result, **pair, **masks},
    }


def wrong_values(hint: Any) -> Iterator[Any]:
    """Yield the values that are of no kind that a parameter takes; no parameter takes a list or mapping of numbers."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (UnionType, typing.Union) else (hint,)
    kinds = tuple(part for part in parts if inspect.isclass(part) and typing.get_origin(part) is None)
    for value in WRONG:
        if not any(_is(value, kind) for kind in kinds):
            yield value


def _is(value: Any, kind: type) -> bool:
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot be checked
        return False


def problems(folder: Path) -> list[str]:
    """List the calls whose error is not a clear one."""
    functions, right, found = public_functions(), right_values(folder), []
    if missing := set(functions) ^ set(right):
        found.append(f"right_values has no line for, or too many: {', '.join(sorted(missing))}")
    for name in functions.keys() & right.keys():
        hints = typing.get_type_hints(functions[name], include_extras=False)
        for parameter in right[name]:
            for value in wrong_values(hints[parameter]):
                problem = _problem(functions[name], {**right[name], parameter: value}, value)
                if problem:
                    found.append(f"{name}({parameter}={type(value).__name__}): {problem}")
    return found


def _problem(function: Callable[..., Any], values: Mapping[str, Any], wrong: Any) -> str:
    try:
        function(**values)
    except (TypeError, ca.errors.InputError, ca.errors.OutputError) as error:
        text = str(error)
        says = type(wrong).__name__ in text or repr(wrong) in text
        return "" if says and any(word in text for word in SAYS_WHAT_WAS_WANTED) else f"{type(error).__name__}: {text}"
    except Exception as error:  # noqa: BLE001 - every other error is what is looked for
        return f"{type(error).__name__}: {error}"
    return "no error"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        sys.stdout.write(json.dumps(problems(Path(place)), indent=2))
