"""What every test shares: the data folder, deterministic examples, one thread for each worker."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

# Shared machines are slow at times: no deadline. "ci" draws the same examples each time; "search" looks for new ones.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=40, database=None)
settings.register_profile(
    "search", deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
    if hasattr(config, "workerinput"):  # workers share the cores: more threads only get in one another's way
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans, which are not part of the repository; the test is skipped where it is absent."""
    folder = Path(os.environ.get("CROSSALIGN_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}: set CROSSALIGN_SHARED_DATA to their folder")
    return folder


@pytest.fixture
def shape_checks_off() -> Iterator[None]:
    """Let wrong shapes through to the code's own check, which is what a user of the library meets."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run with one thread: bit-identical weights need the same number of threads in each process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
