"""Libraries that only some commands need: each comes with an extra, which the error names where it is absent."""

from importlib import import_module
from typing import Any

from crossalign.errors import InputError


def optional_module(name: str, need: str, extra: str) -> Any:
    """Import a module that an extra of this package brings.

    `need` says what needs which library, as "a BIDS data set needs ancpbids". Raises InputError that says it and how to
    install the extra, where the module or something that it needs is absent.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{need}: pip install 'crossalign[{extra}]'") from error
