"""File systems made for one measurement, and the images that trees are kept in.

Every mount is in the mount namespace that Benchmarks/run made: nothing of it is left when the run ends, however it
ends.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amorcebench.failure import BenchmarkFailure


@dataclass(frozen=True)
class Place:
    """Where a tree is restored to: ``ext4`` or ``tmpfs``, fresh each time."""

    kind: str

    @contextmanager
    def fresh(self, work: Path, capacity: int) -> Iterator[Path]:
        """Mounts an empty file system for ``capacity`` bytes of files."""
        point = work / "target"
        point.mkdir(exist_ok=True)
        image = work / "target.ext4"
        if self.kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", "size=90%,mode=755", "amorce-bench", str(point))
        else:
            make_image(image, capacity)
            mount_image(image, point)
        try:
            yield point
        finally:
            run("umount", str(point))
            image.unlink(missing_ok=True)


TMPFS = Place("tmpfs")
EXT4 = Place("ext4")


def run(*command: str) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise BenchmarkFailure(f"{' '.join(command)}: {finished.stderr.strip()}")
    return finished.stdout.strip()


def make_image(image: Path, capacity: int) -> None:
    """A sparse file with an empty, journalled ext4; its tables are written at once, or the kernel would do it later."""
    with open(image, "wb") as file:
        file.truncate(capacity * 3 // 2 + (256 << 20))
    run("mkfs.ext4", "-q", "-F", "-i", "8192", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))


def mount_image(image: Path, point: Path, read_only: bool = False) -> None:
    point.mkdir(exist_ok=True)
    run("mount", "-o", "loop,ro" if read_only else "loop", str(image), str(point))


def bind(folder: Path, point: Path) -> None:
    """Shows a mounted folder at another path, in place of what was shown there; its pages stay in the cache."""
    point.mkdir(exist_ok=True)
    if point.is_mount():
        run("umount", str(point))
    run("mount", "--bind", str(folder), str(point))


def copy_image(image: Path, copy: Path) -> None:
    """The same file system again: same inodes, same times of change."""
    run("cp", "--sparse=always", str(image), str(copy))


def require_memory(count: int) -> None:
    """Fails where the inputs and outputs of a run would not fit into memory, where all of them are kept."""
    available = next(
        int(line.split()[1]) << 10
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    if available < count:
        raise BenchmarkFailure(
            f"this run keeps {count / 1e9:.1f} GB in memory and {available / 1e9:.1f} GB are available; "
            "use fewer --files"
        )


def require_disk(folder: Path, count: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < count:
        raise BenchmarkFailure(f"{folder} needs {count / 1e9:.1f} GB and has {free / 1e9:.1f} GB; use fewer --files")
