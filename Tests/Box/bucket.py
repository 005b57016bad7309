"""Buckets: rclone's S3 server over a folder, and ministack, which checks what rclone lets pass."""

import os
import sys
from pathlib import Path

from programs import BoxError, Daemon, wait_until

NAME = "acme-backups"
PORT = 9000
KEY = "AKIAMADEUPKEY0000001"
SECRET = "MADE-UP-SECRET-of-the-bucket"
REGION = "eu-west-1"


def _tool(name):
    """A program of the virtual environment the tests run in."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise BoxError(f"{path} is missing: install Tests/Box/requirements.txt")
    return path


class RcloneBucket:
    def __init__(self, folder, host):
        self.address, self.endpoint = host.address, f"http://{host.address}:{PORT}"
        # The session token of a role is accepted whatever it is; key and secret are checked.
        self.keys = (KEY, SECRET, "MADE-UP-SECRET-session")
        folder = Path(folder)
        self._store = folder / "store"
        (self._store / NAME).mkdir(parents=True)
        self._server = Daemon("rclone", host.command([
            _tool("rclone"), "serve", "s3", "--config=", f"--addr={host.address}:{PORT}", f"--auth-key={KEY},{SECRET}",
            # Keys appear in the folder behind its back.
            "--dir-cache-time=0", self._store]), folder / "log", env={"PATH": "/usr/bin:/bin", "HOME": str(folder)})
        wait_until(lambda: self._server.must_run() and host.connect(host.address, PORT).close() is None, 30, "rclone listens")

    def put(self, key, path):
        place = self._store / NAME / key
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)

    def close(self):
        self._server.stop()
