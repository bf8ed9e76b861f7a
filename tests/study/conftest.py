"""What tests of studies share."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _workers(warm_workers: None) -> None:
    """Every study here that runs in this process has workers that need not import everything first."""
