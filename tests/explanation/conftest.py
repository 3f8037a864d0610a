"""Networks trained in seconds on planted blobs, once for each worker."""

import pytest
from tests.explanation import planted
from torch import nn


@pytest.fixture(scope="session")
def correspondence() -> nn.Module:
    return planted.trained("correspondence", steps=60, rate=3e-3)


@pytest.fixture(scope="session")
def attention_reg() -> nn.Module:
    return planted.trained("attention-reg", steps=80, rate=3e-3)
