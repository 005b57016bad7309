"""One timed run of one side, and what many of them come to."""

import os
import resource
import statistics
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from amorcebench.failure import BenchmarkFailure


@dataclass(frozen=True)
class Side:
    """One way to do the work: a pipeline for bash, with its inputs in variables."""

    name: str
    script: str
    # Where below the target the tree ends up.
    below: str = ""
    # Whether the pipeline reads the source tree, which must then be in the page cache.
    reads_source: bool = False


@dataclass(frozen=True)
class Sample:
    # Until the pipeline ended, and until everything was on the disk as well: the figure that is compared.
    command: float
    seconds: float
    # Of all processes of the pipeline; a daemon and the store are not among them.
    processor: float
    # Of amorce alone, in bytes; None for the others.
    peak: int | None
    # To the store, and left there; only of backups.
    uploaded: int | None = None
    stored: int | None = None


# Bash functions for the pipelines: GNU time measures amorce's memory from a small process of its own, since the kernel
# lets a child begin with its parent's peak. Records of 256 KiB make tar a tenth faster than its 10 KiB.
PRELUDE = """
set -euo pipefail
amorce() { "$clock" --quiet --format=%M --output="$peak" "$binary" "$@"; }
untar() { tar --extract --blocking-factor=512 --preserve-permissions --no-same-owner --directory="$to"; }
"""


def time_side(side: Side, environment: dict[str, str], flush: Path | None, scratch: Path) -> Sample:
    """Runs a pipeline; ``flush`` is a path on the file system that it writes to."""
    peak = scratch / "peak"
    peak.unlink(missing_ok=True)
    output = scratch / "output"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(output, "wb") as log:
        start = time.monotonic()
        finished = subprocess.run(
            ["bash", "-c", PRELUDE + side.script],
            env={**environment, "peak": str(peak)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        )
        ended = time.monotonic()
    if finished.returncode != 0:
        tail = output.read_text(errors="backslashreplace").strip()[-2_000:]
        raise BenchmarkFailure(f"{side.name} ended with {finished.returncode}:\n{tail}")
    if flush:
        subprocess.run(["sync", "--file-system", str(flush)], check=True)
    synced = time.monotonic()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kilobytes = int(peak.read_text().split()[-1]) if peak.exists() else None
    return Sample(
        command=ended - start,
        seconds=synced - start,
        processor=processor,
        peak=kilobytes << 10 if kilobytes is not None else None,
    )


def warm(folder: Path) -> None:
    """Reads every file below a folder, so that its content is in the page cache."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.islink(path):
                continue
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass


@dataclass
class Results:
    """All samples of a run by group and side, in the order in which they were first met."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def add(self, group: str, side: str, sample: Sample) -> None:
        self.samples[group, side].append(sample)

    def median(self, group: str, side: str, what: str = "seconds") -> float | None:
        """None where that side was not run."""
        values = [getattr(sample, what) for sample in self.samples.get((group, side), [])]
        return statistics.median(values) if values and None not in values else None

    def ratio(self, group: str, side: str, base: str, what: str = "seconds") -> float | None:
        value, divisor = self.median(group, side, what), self.median(group, base, what)
        return value / divisor if value is not None and divisor else None

    def fastest(self, group: str, sides: list[str]) -> str | None:
        medians = {side: median for side in sides if (median := self.median(group, side)) is not None}
        return min(medians, key=medians.__getitem__) if medians else None
