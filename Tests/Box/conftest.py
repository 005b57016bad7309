import pytest

from box import Box


@pytest.fixture(scope="session")
def box():
    """One environment for all tests: what a test changes in it, it changes back."""
    with Box() as box:
        yield box
