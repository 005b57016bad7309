import shutil
import tempfile
from pathlib import Path

import pytest

from scratch_front import ScratchFront


@pytest.fixture
def base():
    """A folder that the web server's user can reach: pytest's own are closed to others whenever a session starts."""
    folder = Path(tempfile.mkdtemp(prefix="amorce-blackbox-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_front(base):
    """Makes fronts with other settings; each is stopped in the end."""
    fronts = []

    def make(**settings):
        place = base / f"front{len(fronts)}"
        place.mkdir()
        fronts.append(ScratchFront(place, settings))
        return fronts[-1]

    yield make
    for front in fronts:
        front.stop()


@pytest.fixture
def front(make_front):
    """A front that has not been booted."""
    return make_front()
