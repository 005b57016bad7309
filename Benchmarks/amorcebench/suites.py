"""The four benchmarks, and the ratio that each promise is about."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from amorcebench import mounts, sides
from amorcebench.measure import Results, Sample, Side
from amorcebench.mounts import EXT4, TMPFS, Place
from amorcebench.report import MEBIBYTE, Report, Target
from amorcebench.sides import AMORCE, AWS_GZIP, LIMIT, TAR_ZSTD_AWS
from amorcebench.workbench import BYTES_PER_FILE, Workbench, note

PEAK_LIMIT = 96.0
GROWTH_SHARES = (40, 4, 1)
Element = TypeVar("Element")


@dataclass(frozen=True)
class Group:
    """Sides that do the same work under the same conditions, and are therefore compared."""

    name: str
    place: Place
    sides: list[Side]
    variables: dict[str, str] = field(default_factory=dict)


def restore(bench: Workbench, report: Report) -> None:
    """From the backup in the store, or on the local disk, to the tree."""
    mounts.require_memory(report.files * BYTES_PER_FILE * 5)
    source = bench.mount_tree(report.files)
    report.size = size_of(source)
    bench.upload(bench.archive(report.files, "tar.gz", source), "site.tar.gz")
    bench.upload(bench.archive(report.files, "tar.zst", source), "site.tar.zst")
    own = {"own": "s3://bench/own/", "own_file": f"file://{bench.work}/own/"}
    (bench.work / "own").mkdir()
    restic = sides.restore_restic(str(source))
    if bench.wants(sides.restore_own()):
        bench.prepare(sides.OWN_BACKUP, source=str(source), prefix="own")
        bench.prepare(sides.OWN_LOCAL_BACKUP, source=str(source), **own)
    if bench.wants(restic):
        bench.prepare(sides.RESTIC_INITIALISE)
        bench.prepare(sides.RESTIC_BACKUP, source=str(source))
    packed = bench.pack_for_limit(source) if bench.wants(sides.create_files()) else {}
    bench.start_rsync(source)

    remote = [sides.restore_own(), sides.restore_gzip()[0], *sides.restore_zstd(), restic]
    paced = bench.store_environment(bench.paced)
    local = [sides.restore_own_local(), sides.create_files()]
    groups = [
        *(
            Group(f"{place.kind}, store on loopback", place, [*remote, sides.restore_rsync()], own)
            for place in (EXT4, TMPFS)
        ),
        Group("tmpfs, store with 80 MB/s and 25 ms", TMPFS, remote, {**own, **paced}),
        *(Group(f"{place.kind}, backup on the local disk", place, local, {**own, **packed}) for place in (EXT4, TMPFS)),
    ]
    alternate(bench, report, groups, source)

    results = report.results
    ext4, tmpfs, slow, *nearby = (group.name for group in groups)
    peers = [side.name for side in groups[0].sides[1:]]
    report.targets = [
        Target(f"{ext4}: {AWS_GZIP}", results.ratio(ext4, AWS_GZIP, AMORCE), 4.0),
        best_peer(results, ext4, peers, 2.2),
        Target(f"{tmpfs}: {AWS_GZIP}", results.ratio(tmpfs, AWS_GZIP, AMORCE), 5.5),
        best_peer(results, tmpfs, peers, 2.4),
        best_peer(results, slow, peers, 2.2),
        *(
            Target(f"{name}: {AMORCE} / limit", results.ratio(name, AMORCE, LIMIT), 1.4, at_most=True)
            for name in nearby
        ),
    ]


def archive(bench: Workbench, report: Report) -> None:
    """From the plain archives that everybody has."""
    mounts.require_memory(report.files * BYTES_PER_FILE * 4)
    source = bench.mount_tree(report.files)
    report.size = size_of(source)
    peers = {"tar.gz": sides.restore_gzip(), "tar.zst": sides.restore_zstd()}
    groups = []
    for suffix, pipelines in peers.items():
        bench.upload(bench.archive(report.files, suffix, source), f"site.{suffix}")
        own = sides.restore_own_archive(suffix)
        groups += [Group(f"{place.kind}, .{suffix}", place, [own, *pipelines]) for place in (EXT4, TMPFS)]
    alternate(bench, report, groups, source)
    report.targets = [
        best_peer(report.results, group.name, [side.name for side in group.sides[1:]], 1.3) for group in groups
    ]


def backup(bench: Workbench, report: Report) -> None:
    """Making the backup, and making it again after a day's changes; what was made is restored and compared."""
    mounts.require_memory(report.files * BYTES_PER_FILE * 5)
    first_tree = bench.mount_tree(report.files)
    report.size = size_of(first_tree)
    second_tree, changes = bench.changed_tree(report.files)
    note(f"{changes.changed} files changed, {changes.added} added, {changes.deleted} deleted")
    # One path for both, as on an orchestrator.
    source = bench.work / "site"
    first, second = (
        "the first backup",
        f"the second, after {changes.changed + changes.added + changes.deleted:,} changes",
    )
    capacity = report.files * BYTES_PER_FILE
    restic_restore = sides.restore_restic(str(source))
    makers: list[tuple[Side, Side, bool]] = [
        (sides.OWN_BACKUP, sides.OWN_RESTORE, True),
        *((side, sides.TAR_RESTORE, False) for side in sides.TAR_BACKUPS),
        (sides.RESTIC_BACKUP, restic_restore, True),
    ]
    makers = [maker for maker in makers if bench.wants(maker[0])]
    for round_number in range(report.rounds):
        for maker, restorer, again in turned(makers, round_number):
            variables = {"prefix": f"round-{round_number}"}
            if maker is sides.RESTIC_BACKUP:
                bench.prepare(sides.RESTIC_INITIALISE, **variables)
            for name, changed in ((first, first_tree), (second, second_tree)) if again else ((first, first_tree),):
                mounts.bind(changed, source)
                sample = bench.backup(maker, source, **variables)
                record(report, round_number, name, maker, sample)
                bench.restore(restorer, TMPFS, source, capacity, **variables)
            bench.forget_objects()

    results = report.results
    report.targets = [
        Target(f"{TAR_ZSTD_AWS}, in time", results.ratio(first, TAR_ZSTD_AWS, AMORCE), 1.0),
        Target(
            f"{AMORCE} / {TAR_ZSTD_AWS}, in size",
            results.ratio(first, AMORCE, TAR_ZSTD_AWS, "stored"),
            1.05,
            at_most=True,
        ),
        Target("second / first, bytes sent", between(results, second, first, "uploaded"), 0.10, at_most=True),
        Target("second / first, in time", between(results, second, first, "seconds"), 1 / 3, at_most=True),
    ]


def growth(bench: Workbench, report: Report) -> None:
    """amorce alone with ever more files: neither the time per file nor the memory may grow."""
    mounts.require_memory(report.files * BYTES_PER_FILE * 2)
    sizes = [max(1, report.files // share) for share in GROWTH_SHARES]
    sources = {files: bench.mount_tree(files, f"source-{files}") for files in sizes}
    report.size = size_of(sources[report.files])
    backup_name, restore_name = "backup", "tmpfs, restore"
    for round_number in range(report.rounds):
        for files in turned(sizes, round_number):
            variables = {"own": f"s3://bench/{files}/", "prefix": str(files)}
            side = Side(f"{files:,} files", sides.OWN_BACKUP.script, reads_source=True)
            record(report, round_number, backup_name, side, bench.backup(side, sources[files], **variables))
            side = Side(side.name, sides.restore_own().script)
            sample = bench.restore(side, TMPFS, sources[files], files * BYTES_PER_FILE, **variables)
            record(report, round_number, restore_name, side, sample)
            bench.forget_objects()

    report.base = f"{sizes[0]:,} files"
    for name in (backup_name, restore_name):
        per_file = [
            median / files for files in sizes if (median := report.results.median(name, f"{files:,} files")) is not None
        ]
        spread = max(per_file) / min(per_file)
        report.targets.append(Target(f"{name}: time per file, most / least", spread, 1.2, at_most=True))
        peak = report.results.median(name, f"{report.files:,} files", "peak")
        mebibytes = peak / MEBIBYTE if peak is not None else None
        report.targets.append(Target(f"{name}: peak memory", mebibytes, PEAK_LIMIT, at_most=True, unit=" MiB"))


SUITES: dict[str, Callable[[Workbench, Report], None]] = {
    "restore": restore,
    "archive": archive,
    "backup": backup,
    "growth": growth,
}


def alternate(bench: Workbench, report: Report, groups: list[Group], source: Path) -> None:
    """Every side of every group once per round, each round beginning with another side."""
    capacity = report.files * BYTES_PER_FILE
    for round_number in range(report.rounds):
        for group in groups:
            chosen = [side for side in group.sides if bench.wants(side)]
            for side in turned(chosen, round_number):
                sample = bench.restore(side, group.place, source, capacity, **group.variables)
                record(report, round_number, group.name, side, sample)


def record(report: Report, round_number: int, group: str, side: Side, sample: Sample) -> None:
    report.results.add(group, side.name, sample)
    note(f"round {round_number + 1} of {report.rounds}: {group}: {side.name}: {sample.seconds:.2f} s")


def turned(elements: list[Element], count: int) -> list[Element]:
    start = count % len(elements) if elements else 0
    return elements[start:] + elements[:start]


def best_peer(results: Results, group: str, peers: list[str], bound: float) -> Target:
    best = results.fastest(group, peers)
    ratio = results.ratio(group, best, AMORCE) if best else None
    return Target(f"{group}: best peer ({best or 'none'})", ratio, bound)


def between(results: Results, group: str, base: str, what: str) -> float | None:
    """One figure of amorce in two groups."""
    value, divisor = results.median(group, AMORCE, what), results.median(base, AMORCE, what)
    return value / divisor if value is not None and divisor else None


def size_of(source: Path) -> int:
    """The bytes of all files, each counted once."""
    inodes = {status.st_ino: status.st_size for status in map(Path.lstat, source.rglob("*")) if S_ISREG(status.st_mode)}
    return sum(inodes.values())
