"""What every benchmark stands on: trees, the store, fresh file systems, and one timed and checked run."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from amorcebench import limit, mounts, sides, tree
from amorcebench.compare import require_equal
from amorcebench.failure import BenchmarkFailure
from amorcebench.measure import Sample, Side, time_side, warm
from amorcebench.mounts import Place

HOME = Path(__file__).resolve().parent.parent
# Bytes per file and per GB of the tree, rounded up, for capacities; see tree.py.
BYTES_PER_FILE = 20_000
# What S3 gives one connection, and the time to its first byte.
PACED_RATE = 80e6
PACED_FIRST_BYTE = 0.025


@dataclass(frozen=True)
class Options:
    files: int
    seed: int
    amorce: Path
    # Names of sides; empty for all.
    only: tuple[str, ...] = ()


class Workbench:
    """Lives in the namespaces that Benchmarks/run made, which end every mount and process with it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.cache = HOME / ".cache"
        self.trees = self.cache / "trees"
        self.trees.mkdir(exist_ok=True)
        self.work = self.cache / "work"
        self.work.mkdir(exist_ok=True)
        mounts.run("mount", "-t", "tmpfs", "-o", "size=90%,mode=755", "amorce-bench", str(self.work))
        self.plain, self.paced = self.start_store()
        self.environment = self.make_environment()

    # Programs.

    def start_store(self) -> tuple[str, str]:
        store = subprocess.Popen(
            [sys.executable, "-m", "amorcebench.store", f"--rate={PACED_RATE}", f"--first-byte={PACED_FIRST_BYTE}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert store.stdout is not None
        plain, paced = (store.stdout.readline().strip() for _ in range(2))
        if not paced:
            raise BenchmarkFailure("the store did not start")
        return plain, paced

    def start_rsync(self, source: Path) -> None:
        configuration = self.work / "rsyncd.conf"
        configuration.write_text(
            "use chroot = no\nuid = root\ngid = root\naddress = 127.0.0.1\n"
            f"port = {sides.RSYNC_PORT}\n[site]\npath = {source}\nread only = yes\n"
        )
        subprocess.Popen(
            ["rsync", "--daemon", "--no-detach", f"--config={configuration}"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def make_environment(self) -> dict[str, str]:
        """Credentials are made up: nobody checks them."""
        programs = self.cache / "programs/usr"
        libraries = ":".join(str(path) for path in sorted(programs.glob("lib/*")))
        aws = self.work / "aws.config"
        aws.write_text("[default]\ns3 =\n  max_concurrent_requests = 16\n  multipart_chunksize = 16MB\n")
        rclone = self.work / "rclone.config"
        rclone.write_text("[store]\ntype = s3\nprovider = Other\nenv_auth = true\nno_check_bucket = true\n")
        return {
            "PATH": f"{self.cache / 'venv/bin'}:{programs / 'bin'}:{self.cache}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": libraries,
            "HOME": str(self.work),
            "TMPDIR": str(self.work),
            "LC_ALL": "C.UTF-8",
            "binary": str(self.options.amorce),
            "clock": str(programs / "bin/time"),
            "threads": str(os.cpu_count() or 1),
            "AWS_ACCESS_KEY_ID": "made-up-key",
            "AWS_SECRET_ACCESS_KEY": "made-up-secret",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(aws),
            "RCLONE_CONFIG": str(rclone),
            "RESTIC_PASSWORD": "made-up-password",
            "restic_cache": str(self.work / "restic"),
            **self.store_environment(self.plain),
        }

    @staticmethod
    def store_environment(address: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": address,
            "S3_ENDPOINT_URL": address,
            "RCLONE_S3_ENDPOINT": address,
            "repository": f"s3:{address}/restic/site",
        }

    def versions(self) -> dict[str, str]:
        """What ran here, for whoever reads the figures later."""
        commands = {
            "amorce": [str(self.options.amorce), "--version"],
            "aws": ["aws", "--version"],
            "s5cmd": ["s5cmd", "version"],
            "rclone": ["rclone", "version"],
            "restic": ["restic", "version"],
            "rsync": ["rsync", "--version"],
            "tar": ["tar", "--version"],
            "zstd": ["zstd", "--version"],
            "kernel": ["uname", "-r"],
        }
        found = {}
        for name, command in commands.items():
            finished = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
            found[name] = (finished.stdout.strip() or "?").splitlines()[0]
        found["processors"] = str(os.cpu_count())
        return found

    def wants(self, side: Side) -> bool:
        return not self.options.only or side.name in self.options.only

    # Trees.

    @cached_property
    def fingerprint(self) -> str:
        """Another generator or other packages make another tree."""
        parts = [(self.cache / "versions").read_bytes(), Path(tree.__file__).read_bytes()]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:12]

    def tree_file(self, files: int, suffix: str) -> Path:
        return self.trees / f"{files}-{self.options.seed}-{self.fingerprint}.{suffix}"

    def image(self, files: int) -> Path:
        """The image of a tree, kept from run to run."""
        image = self.tree_file(files, "ext4")
        if image.exists():
            return image
        mounts.require_disk(self.trees, files * BYTES_PER_FILE * 2)
        note(f"making a tree of {files:,} files")
        made = image.with_suffix(".new")
        mounts.make_image(made, files * BYTES_PER_FILE)
        point = self.work / "new"
        mounts.mount_image(made, point)
        (point / "lost+found").rmdir()
        tree.generate(self.cache / "packages", point, files, self.options.seed)
        mounts.run("umount", str(point))
        made.rename(image)
        return image

    def mount_tree(self, files: int, name: str = "source") -> Path:
        """The tree, read-only."""
        point = self.work / name
        mounts.mount_image(self.image(files), point, read_only=True)
        return point

    def changed_tree(self, files: int) -> tuple[Path, tree.Changes]:
        """The same tree a day later, on a copy of its file system."""
        copy = self.work / "changed.ext4"
        mounts.copy_image(self.image(files), copy)
        point = self.work / "changed"
        mounts.mount_image(copy, point)
        return point, tree.change(point, self.options.seed)

    def archive(self, files: int, suffix: str, source: Path) -> Path:
        """The tree as a plain archive, kept from run to run."""
        archive = self.tree_file(files, suffix)
        if not archive.exists():
            note(f"making {archive.name}")
            compress = {"tar.gz": "gzip", "tar.zst": "zstd --threads=0"}[suffix]
            made = archive.with_suffix(".new")
            script = f'set -o pipefail; tar --create --directory="$1" . | {compress} --stdout > "$2"'
            subprocess.run(["bash", "-c", script, "archive", str(source), str(made)], check=True)
            made.rename(archive)
        return archive

    def pack_for_limit(self, source: Path) -> dict[str, str]:
        note("packing the tree for the physical limit")
        manifest, data = self.work / "limit.manifest", self.work / "limit.data"
        limit.pack(source, manifest, data)
        return {"manifest": str(manifest), "data": str(data)}

    # The store.

    def upload(self, file: Path, key: str) -> None:
        with open(file, "rb") as body:
            request = urllib.request.Request(f"{self.plain}/bench/{key}", data=body, method="PUT")
            request.add_header("Content-Length", str(file.stat().st_size))
            urllib.request.urlopen(request).close()

    def statistics(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.plain}/?statistics") as answer:
            figures: dict[str, int] = json.load(answer)
        return figures

    def forget_objects(self) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.plain}/", method="DELETE")).close()

    # Runs.

    def prepare(self, side: Side, **variables: str) -> Sample:
        """A run that fills the store; timed, but nobody compares the time."""
        note(f"preparing: {side.name}")
        return time_side(side, {**self.environment, **variables}, None, self.work)

    def restore(self, side: Side, place: Place, source: Path, capacity: int, **variables: str) -> Sample:
        """One restore into a fresh file system, compared with the source tree."""
        if side.reads_source:
            warm(source)
        with mounts_for(place, self.work, capacity) as target:
            sample = time_side(side, {**self.environment, **variables, "to": str(target)}, target, self.work)
            require_equal(source, target / side.below, f"the tree that {side.name} restored to {place.kind}")
        return sample

    def backup(self, side: Side, source: Path, **variables: str) -> Sample:
        """One backup of a tree in the page cache, with what it sent to the store and left there."""
        warm(source)
        before = self.statistics()
        sample = time_side(side, {**self.environment, **variables, "source": str(source)}, None, self.work)
        after = self.statistics()
        uploaded, stored = (after[key] - before[key] for key in ("received", "stored"))
        return replace(sample, uploaded=uploaded, stored=stored)


@contextmanager
def mounts_for(place: Place, work: Path, capacity: int) -> Iterator[Path]:
    """An empty folder on a fresh file system, not its root: amorce stages beside the folder that it restores into."""
    with place.fresh(work, capacity) as point:
        target = point / "tree"
        target.mkdir()
        yield target


def note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
