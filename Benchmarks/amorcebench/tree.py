"""The tree that everything is measured on: real PHP applications under many site folders, uploads, links, odd names.

The same seed, number of files and package versions give the same tree, byte for byte. All times are whole seconds,
since the tar format that the peers write by default holds no more.
"""

import math
import os
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# A site takes at most so many files of one application, so that a large one does not drown the others.
SITE_FILES = 2_000
IMAGE_SHARE = 0.045
IMAGE_BYTES = (20_000, 300_000)
# Dumps, videos and archives of 100,000 files: more of them in a larger tree, smaller ones in a smaller tree.
LARGE_BYTES = (200_000_000, 60_000_000, 30_000_000, 10_000_000)
LARGE_PER_FILES = 100_000
EMPTY_FOLDER_SHARE = 0.002
SYMBOLIC_LINK_SHARE = 0.005
HARD_LINK_SHARE = 0.003

OLDEST = 1_100_000_000
NEWEST = 1_750_000_000
CHANGED_AT = 1_760_000_000

# Nothing that its owner cannot read and write: amorce adds these bits to whatever it restores, on purpose.
FILE_MODES = (0o644, 0o644, 0o644, 0o644, 0o644, 0o640, 0o664, 0o600, 0o755)
FOLDER_MODES = (0o755, 0o755, 0o755, 0o755, 0o775, 0o750, 0o700)

# Each is made once per tree, in the first site.
ODD_NAMES = (
    b"two  spaces",
    b" leading and trailing ",
    "été à la plage, 写真.jpg".encode(),
    "e\u0301 decomposed".encode(),
    "déjà vu.txt".encode("latin-1"),
    b"-rf",
    b".hidden",
    b"...",
    b"new\nline",
    b"tab\tand \x1b[31mescape",
    b'quote\'s "and" $dollar `tick` \\backslash',
    b"percent%2Fplus+hash#question?semicolon;",
    b"glob*[a-z]?",
    b"colon:equals=at@",
    b"n" * 255,
    b"/".join([b"d" * 60] * 4) + b"/longer than a tar header holds",
)
ODD_MODES = (0o666, 0o611, 0o604, 0o777)
ODD_TIMES = (0, 1, 946_684_799, 2_208_988_800)


@dataclass(frozen=True)
class Application:
    name: str
    root: bytes
    files: list[bytes]


@dataclass
class Plan:
    """What is decided before anything is written."""

    rng: random.Random
    files: list[bytes] = field(default_factory=list)
    folders: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class Changes:
    changed: int
    added: int
    deleted: int


def applications(packages: Path) -> list[Application]:
    """The regular files of each unpacked package; its symbolic links lead to other packages and are left out."""
    found = []
    for package in sorted(packages.iterdir()):
        root = os.fsencode(package)
        files = sorted(
            os.path.relpath(path, root)
            for folder, _, names in os.walk(root)
            for path in (os.path.join(folder, name) for name in names)
            if stat.S_ISREG(os.lstat(path).st_mode)
        )
        found.append(Application(package.name, root, files))
    if not found:
        raise FileNotFoundError(f"no packages in {packages}")
    return found


def generate(packages: Path, root: Path, files: int, seed: int) -> None:
    """Makes a tree of that many regular files in the empty folder ``root``."""
    plan = Plan(random.Random(f"tree {seed}"))
    base = os.fsencode(root)
    large = large_sizes(files)
    images = int(files * IMAGE_SHARE)
    odd = min(len(ODD_NAMES), files // 10)
    sites = write_sites(plan, base, applications(packages), files - images - len(large) - odd, seed)
    write_uploads(plan, base, sites, images)
    write_large(plan, base, sites, large)
    for number, name in enumerate(ODD_NAMES[:odd]):
        content = b"odd name %d of seed %d\n" % (number, seed)
        write(plan, base, os.path.join(sites[0], b"uploads", b"odd", name), content)
    set_files(plan, base)
    write_links(plan, base, sites, files)
    set_folders(plan, base)


def large_sizes(files: int) -> list[int]:
    sets = max(1, round(files / LARGE_PER_FILES))
    scale = files / LARGE_PER_FILES / sets
    return [int(size * scale) for size in LARGE_BYTES] * sets


def write_sites(plan: Plan, base: bytes, available: list[Application], count: int, seed: int) -> list[bytes]:
    """Unpacks one application after the other until there are ``count`` files, no two copies of a file alike."""
    sites: list[bytes] = []
    written = 0
    while written < count:
        application = available[len(sites) % len(available)]
        site = b"site-%03d-%s" % (len(sites), application.name.encode())
        sites.append(site)
        amount = min(SITE_FILES, len(application.files), count - written)
        first = plan.rng.randrange(len(application.files) - amount + 1)
        for name in application.files[first : first + amount]:
            with open(os.path.join(application.root, name), "rb") as file:
                content = file.read()
            line = b"\n// %s, file %d of seed %d\n" % (site, written, seed)
            write(plan, base, os.path.join(site, name), content + line)
            written += 1
    return sites


def write_uploads(plan: Plan, base: bytes, sites: list[bytes], images: int) -> None:
    """Pictures: content that no compression makes smaller, sizes spread evenly over their logarithm."""
    least, most = (math.log(size) for size in IMAGE_BYTES)
    for number in range(images):
        site = sites[number % len(sites)]
        name = b"uploads/%d/%02d/picture %05d.jpg" % (2015 + number % 11, 1 + number % 12, number)
        size = int(math.exp(plan.rng.uniform(least, most)))
        write(plan, base, os.path.join(site, name), plan.rng.randbytes(size))


def write_large(plan: Plan, base: bytes, sites: list[bytes], sizes: list[int]) -> None:
    """A database dump (rows of text) and a video (random bytes) by turns."""
    for number, size in enumerate(sizes):
        site = sites[number % len(sites)]
        if number % 2 == 0:
            rows = b"".join(
                b"INSERT INTO posts VALUES (%d, %d, '%s');\n"
                % (row, plan.rng.getrandbits(32), plan.rng.choice(sites) * plan.rng.randrange(1, 9))
                for row in range(size // 120)
            )
            content = (rows * 2)[:size]
            name = b"dump-%d.sql" % number
        else:
            content = plan.rng.randbytes(size)
            name = b"video-%d.mp4" % number
        write(plan, base, os.path.join(site, b"var/large", name), content)


def write(plan: Plan, base: bytes, path: bytes, content: bytes) -> None:
    make_folders(plan, base, os.path.dirname(path))
    with open(os.path.join(base, path), "xb", buffering=0) as file:
        file.write(content)
    plan.files.append(path)


def make_folders(plan: Plan, base: bytes, path: bytes) -> None:
    if path and path not in plan.folders:
        make_folders(plan, base, os.path.dirname(path))
        os.mkdir(os.path.join(base, path))
        plan.folders.add(path)


def set_files(plan: Plan, base: bytes) -> None:
    odd = zip(plan.rng.sample(plan.files, min(len(ODD_MODES), len(plan.files))), ODD_MODES, ODD_TIMES, strict=False)
    special = {path: (mode, time) for path, mode, time in odd}
    for path in plan.files:
        mode, time = special.get(path, (plan.rng.choice(FILE_MODES), plan.rng.randrange(OLDEST, NEWEST)))
        full = os.path.join(base, path)
        os.chmod(full, mode)
        os.utime(full, (time, time))


def write_links(plan: Plan, base: bytes, sites: list[bytes], files: int) -> None:
    """Hard links, symbolic links to files, to folders and to nothing, and empty folders."""
    for number in range(int(files * HARD_LINK_SHARE)):
        target = plan.rng.choice(plan.files)
        path = os.path.join(sites[number % len(sites)], b"hard", b"link-%d" % number)
        make_folders(plan, base, os.path.dirname(path))
        os.link(os.path.join(base, target), os.path.join(base, path))
    # Debian's restic does not keep the target of a symbolic link that is not UTF-8; such names themselves it does.
    folders = sorted(filter(is_utf8, plan.folders))
    names = list(filter(is_utf8, plan.files))
    for number in range(int(files * SYMBOLIC_LINK_SHARE)):
        folder = os.path.join(sites[number % len(sites)], b"soft")
        make_folders(plan, base, folder)
        target = plan.rng.choice(folders if number % 4 == 0 else names)
        inside = b"nowhere" if number % 50 == 7 else os.path.relpath(target, folder)
        full = os.path.join(base, folder, b"link-%d" % number)
        os.symlink(inside, full)
        time = plan.rng.randrange(OLDEST, NEWEST)
        os.utime(full, (time, time), follow_symlinks=False)
    for number in range(max(1, int(files * EMPTY_FOLDER_SHARE))):
        make_folders(plan, base, os.path.join(sites[number % len(sites)], b"cache", b"empty %d" % number))


def is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def set_folders(plan: Plan, base: bytes) -> None:
    """Modes and times of folders come last: whatever is made in a folder changes its time."""
    for path in sorted(plan.folders, reverse=True):
        full = os.path.join(base, path)
        os.chmod(full, plan.rng.choice(FOLDER_MODES))
        time = plan.rng.randrange(OLDEST, NEWEST)
        os.utime(full, (time, time))
    os.chmod(base, 0o755)
    os.utime(base, (NEWEST, NEWEST))


def change(root: Path, seed: int) -> Changes:
    """What a day does to a tree: 1 % of the files changed, 0.5 % added and 0.3 % deleted, all at random."""
    rng = random.Random(f"change {seed}")
    base = os.fsencode(root)
    # A file with several names would count, and change, several times.
    files = sorted(path for path, status in regular_files(base) if status.st_nlink == 1)
    folders = sorted({os.path.dirname(path) for path in files})
    changed = max(1, len(files) // 100)
    added = max(1, len(files) // 200)
    deleted = max(1, len(files) * 3 // 1_000)
    chosen = rng.sample(files, changed + deleted)
    for path in chosen[:changed]:
        full = os.path.join(base, path)
        with open(full, "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(b"\n// changed: %d\n" % rng.getrandbits(64))
        os.utime(full, (CHANGED_AT, CHANGED_AT))
    touched = {os.path.dirname(path) for path in chosen[changed:]}
    for path in chosen[changed:]:
        os.unlink(os.path.join(base, path))
    for number in range(added):
        folder = rng.choice(folders)
        touched.add(folder)
        full = os.path.join(base, folder, b"added-%d.php" % number)
        with open(full, "xb") as file:
            file.write(b"<?php // %s\n" % rng.randbytes(rng.randrange(200, 6_000)).hex().encode())
        os.utime(full, (CHANGED_AT, CHANGED_AT))
    for folder in touched:
        os.utime(os.path.join(base, folder), (CHANGED_AT, CHANGED_AT))
    return Changes(changed, added, deleted)


def regular_files(base: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    for folder, _, names in os.walk(base):
        for name in names:
            full = os.path.join(folder, name)
            status = os.lstat(full)
            if stat.S_ISREG(status.st_mode):
                yield os.path.relpath(full, base), status
