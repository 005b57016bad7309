"""Folders to back up, and how one that came back is judged."""

import os
import random
import subprocess
from pathlib import Path

from scratch_front import Run, binary

# Names that a shell, a terminal, tar or a text file may trip over. Latin-1 is no UTF-8.
ODD_NAMES = [b"a b", b"-rf", b"new\nline", b"esc\x1b[31m", b"latin\xe9", "é 漢字".encode(), b"*?[x]", b"back\\slash", b"quote'\"", b"$(id)",
             b"#x", b"tab\there", b"%25", b"x" * 240, b".hidden", b"..more"]


def amorce(*words, environment=None, wrapper=(), timeout=120, cwd=None):
    done = subprocess.run(
        [*wrapper, binary(), *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=timeout, cwd=cwd,
        env={"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true", **(environment or {})})
    assert "MADE-UP-SECRET" not in done.stdout + done.stderr
    return Run(done, done.stdout, done.stderr)


def make_tree(folder, seed=1, files=60, large=0, size=20_000):
    """A site of `files` small files of random bytes, with all that a tree may have; a file of `large` bytes besides. Half an
    hour old, as files are that nobody writes to."""
    folder = Path(folder)
    chance = random.Random(seed)
    (folder / "lib/deep/er").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    for number in range(files):
        (folder / f"lib/deep/er/file{number:04}").write_bytes(chance.randbytes(size))
    odd = folder / "odd"
    odd.mkdir()
    for number, name in enumerate(ODD_NAMES):
        with open(os.fsencode(odd) + b"/" + name, "wb") as file:
            file.write(b"%d\n" % number)
    long = folder
    for number in range(4):
        long = long / (f"{number}" * 90)
        long.mkdir()
    (long / "far").write_text("far\n")
    (folder / "zero").write_bytes(b"")
    (folder / "text").write_text("line of text\n" * 5000)
    (folder / "read-only").write_text("x")
    os.chmod(folder / "read-only", 0o444)
    (folder / "program").write_text("#!/bin/sh\n")
    os.chmod(folder / "program", 0o755)
    (folder / "closed").mkdir(mode=0o700)
    (folder / "closed/key").write_text("x")
    os.chmod(folder / "closed/key", 0o600)
    (folder / "link").symlink_to("lib/deep/er/file0001")
    (folder / "dangling").symlink_to("lib/nothing")
    (folder / "link to folder").symlink_to("lib/deep")
    os.link(folder / "lib/deep/er/file0002", folder / "lib/hard")
    os.link(folder / "lib/deep/er/file0002", folder / "odd/hard too")
    if large:
        (folder / "large").write_bytes(chance.randbytes(large))
    os.chmod(folder, 0o755)
    age(folder)
    return folder


def age(folder, seconds=1800):
    """Sets every time below it, the folders' last."""
    now = 1_764_000_000 - seconds
    for root, folders, files in os.walk(os.fsencode(folder), topdown=False):
        for name in files + folders:
            os.utime(root + b"/" + name, ns=(now * 10**9, now * 10**9 + 123_456_789), follow_symlinks=False)
    os.utime(folder, ns=(now * 10**9, now * 10**9 + 123_456_789))


def differences(first, second, window="-1"):
    """What rsync would do to make the second like the first: names, bytes, modes, owners, times, hard links."""
    done = subprocess.run(
        ["rsync", "-aHn", "--delete", "--itemize-changes", "--checksum", f"--modify-window={window}", f"{first}/", f"{second}/"],
        capture_output=True, check=True)
    return done.stdout.decode(errors="replace").splitlines()


def unpacked(place, folder):
    """As anybody would without amorce."""
    folder.mkdir()
    subprocess.run(f"zstd -dcq '{place}' | tar -xp -C '{folder}'", shell=True, check=True)
    return folder


def backups_in(folder):
    """The objects and the manifests of a folder, and whatever else lies there."""
    names = sorted(path.name for path in Path(folder).iterdir())
    return ([name for name in names if name.endswith(".framed.tar.zst")], [name for name in names if name.endswith(".manifest")],
            [name for name in names if not name.endswith((".framed.tar.zst", ".manifest"))])
