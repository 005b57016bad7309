"""Whether a restored tree is the source tree, as an independent program sees it."""

import subprocess
from pathlib import Path

from amorcebench.failure import BenchmarkFailure

# The time of the tree's own folder is not part of the tree: who restores makes it, and may move it into place later.
IGNORED = ".d..t...... ./"
# How many differences a message quotes.
QUOTED = 10


def require_equal(source: Path, restored: Path, what: str) -> None:
    """Fails unless both hold the same names, bytes, modes, owners, times (to the nanosecond) and links."""
    command = ["rsync", "-aHn", "--itemize-changes", "--checksum", "--delete", "--numeric-ids", "--modify-window=-1"]
    found = subprocess.run([*command, f"{source}/", f"{restored}/"], capture_output=True, check=False)
    if found.returncode != 0:
        raise BenchmarkFailure(f"rsync could not compare {what}: {found.stderr.decode(errors='replace').strip()}")
    lines = found.stdout.decode(errors="backslashreplace").splitlines()
    differences = [line for line in lines if line != IGNORED]
    if differences:
        more = f"\n  and {len(differences) - QUOTED} more" if len(differences) > QUOTED else ""
        listing = "\n  ".join(differences[:QUOTED])
        raise BenchmarkFailure(f"{what} differs from the source tree:\n  {listing}{more}")
