import pytest

from scratch_front import ScratchFront


@pytest.fixture
def front(tmp_path):
    """A front that has not been booted."""
    front = ScratchFront(tmp_path)
    yield front
    front.stop()


@pytest.fixture
def make_front(tmp_path):
    """Makes fronts with other settings."""
    fronts = []

    def make(**settings):
        base = tmp_path / f"front{len(fronts)}"
        base.mkdir()
        fronts.append(ScratchFront(base, settings))
        return fronts[-1]

    yield make
    for front in fronts:
        front.stop()
