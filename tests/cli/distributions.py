"""What pip would bring with some requirements, of what is installed here, and the modules that it would not."""

import re
from collections.abc import Iterable
from importlib.metadata import distribution, packages_distributions

from packaging.requirements import Requirement


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by(requirements: Iterable[str]) -> set[str]:
    """Names of these distributions, of what they need in turn, and of what is there in any case."""
    todo = list(map(Requirement, requirements))
    found = {"crossalign", "pip", "setuptools"}
    while todo:
        one = todo.pop()
        if canonical(one.name) not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            found.add(canonical(one.name))
            todo += map(Requirement, distribution(one.name).requires or ())
    return found


def lacking(requirements: Iterable[str]) -> list[str]:
    """Names of the modules that are installed here, and are not where only these requirements are."""
    there = brought_by(requirements)
    return [name for name, owners in packages_distributions().items() if not there & set(map(canonical, owners))]
