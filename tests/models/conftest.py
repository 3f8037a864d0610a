"""Switches for the models' tests."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def shape_checks_off() -> Iterator[None]:
    """Let wrong shapes through to the code's own check, which is what a user of the library meets."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
