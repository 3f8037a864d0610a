"""One thread: bit-identical weights need the same number of threads in each process."""

import pytest


@pytest.fixture(autouse=True)
def threads(one_thread: None) -> None:
    pass
