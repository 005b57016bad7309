"""Disks that are full, broken, read-only or somewhere else: the old page is served, the run says so with the right exit code,
and the next one that can works."""

import contextlib
import os
import re
import subprocess

import pytest

from scratch_front import ScratchFront, tree

MARK = "MADE-UP-SECRET"
root_only = pytest.mark.skipif(os.getuid() != 0, reason="mounts need root")


@contextlib.contextmanager
def mounted(place, options):
    """A file system in memory, of its own size."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0755,{options}", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def free(place):
    """Bytes and inodes that are left."""
    status = os.statvfs(place)
    return status.f_bfree * status.f_bsize, status.f_ffree


def fill(place, left):
    """Takes all room but `left` bytes."""
    filler = place / "filler"
    filler.unlink(missing_ok=True)
    count = free(place)[0] - left
    if count > 0:
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, count)
    return filler


def assert_serves(front, version, release=None):
    assert front.fetch() == (200, f"page {version} {version}\n")
    assert front.fetch("/amorce/health")[0] == 200
    if release:
        assert front.live == release


def assert_like_the_orchestrator(front):
    live = front.live_tree()
    live.pop("environment.ini")
    expected = tree(front.orchestrator)
    expected.pop(".amorce-site")
    assert live == expected


# No room

@root_only
@pytest.mark.parametrize("options", ["size=96k", "nr_inodes=30"])
def test_no_room_for_the_first_release(front, options):
    with mounted(front.root / "var/www", options) as www:
        done = front.boot()
        assert done.status == 73, done
        assert "No space left" in done.messages or "no room" in done.messages or "does not fit" in done.messages, done
        assert "df -h" in done.messages and "nothing is served" in done.messages
        assert front.live is None and not front.is_ready and front.fetch() is None
        assert front.releases == []
        subprocess.run(["mount", "-o", "remount,size=16m,nr_inodes=4000", www], check=True)
        assert front.boot().status == 0
        assert_serves(front, 1)


@root_only
@pytest.mark.parametrize("options", ["size=1m", "nr_inodes=125"])
def test_no_room_for_the_next_release(front, options):
    """The data of the new version do not fit; then there are too few inodes for its tree."""
    with mounted(front.root / "var/www", options) as www:
        assert front.boot().status == 0
        first, before = front.live, free(www)
        front.publish("2")
        if "size" in options:
            (front.orchestrator / "big").write_bytes(os.urandom(1 << 20))
        else:
            for number in range(80):
                (front.orchestrator / f"many{number}").write_text("x")
        for _ in range(2):
            done = front.sync()
            assert done.status == 73, done
            assert f"release {first} serves as before" in done.messages
            assert_serves(front, 1, first)
            # What was begun is gone, and its room is free again.
            assert front.releases == [first] and free(www) == before
        subprocess.run(["mount", "-o", "remount,size=16m,nr_inodes=4000", www], check=True)
        assert front.sync().status == 0
        assert_serves(front, 2)
        assert_like_the_orchestrator(front)


@root_only
def test_no_room_for_anything(base):
    """All of the host on one file system that is full but for a little, and for a little more each time: the run ends somewhere
    else each time, and always whole."""
    with mounted(base / "front0/root", "size=24m") as disk:
        front = ScratchFront(base / "front0")
        assert front.boot().status == 0
        version, served, failures = 2, 1, 0
        for left in [0, 12 << 10, 40 << 10, 64 << 10, 96 << 10, 128 << 10, 160 << 10, 200 << 10]:
            front.publish(str(version))
            live = front.live
            filler = fill(disk, left)
            done = front.sync()
            filler.unlink(missing_ok=True)
            if done.status:
                failures += 1
                assert done.status == 73, (left, done)
                assert f"release {live} serves as before" in done.messages, (left, done)
                assert_serves(front, served, live)
            else:
                served = version
                assert_serves(front, served)
            assert MARK not in done.messages + front.everything_said()
            version += 1
        assert failures >= 2
        assert front.sync().status == 0
        assert_serves(front, version - 1)
        assert_like_the_orchestrator(front)
        front.stop()


# Errors of the disk, one call after the other

ERRORS = ["EIO", "ENOSPC", "EDQUOT", "EXDEV"]


def traced(front, calls, log, inject=""):
    return front.run("sync", wrapper=[
        "strace", "-f", "-qq", "-y", "--seccomp-bpf", "-o", log, "-e", f"trace={calls}", "-e", "signal=none",
        *(["-e", f"inject={calls}:{inject}"] if inject else [])])


def numbers(log, every):
    """Which calls of the first process to break, counted from 1: every `every`th of those that are not about the status, which
    may fail for all that a front cares."""
    lines = log.read_text().splitlines()
    first = lines[0].split()[0]
    own = [line for line in lines if line.split()[0] == first and "resumed>" not in line]
    return [number for number, line in enumerate(own, 1) if not re.search(r"status\.json|\.so[.>0-9]", line)][::every]


@pytest.mark.parametrize("calls, every", [
    ("rename,renameat,renameat2", 1), ("fsync,fdatasync,syncfs", 9), ("write,pwrite64,writev", 30), ("close", 600),
    ("link,linkat,symlink,symlinkat", 30), ("fchmod,fchown,fchmodat,fchownat,chmod,chown", 30), ("mkdir,mkdirat,unlinkat", 90),
])
def test_a_call_that_fails(front, base, calls, every):
    log = base / "calls"
    assert front.boot().status == 0
    front.publish("2")
    assert traced(front, calls, log).status == 0
    served, version, failed = 2, 3, 0
    for number in numbers(log, every):
        error = ERRORS[(number + failed) % 4]
        front.publish(str(version))
        live = front.live
        done = traced(front, calls, log, f"error={error}:when={number}")
        injected = [line for line in log.read_text().splitlines() if "INJECTED" in line]
        what = (number, error, injected, done)
        if done.status == 0:
            served = version
            assert_serves(front, served)
        else:
            failed += 1
            assert injected, what
            if front.live != live:
                # It is live and proved; that alone could not be said. The next run says it.
                assert any("/ready" in line for line in injected) and "failed at announce" in done.messages, what
                assert f"release {front.live} serves, and is not announced as ready" in done.messages, what
                assert front.fetch("/amorce/health")[0] == 503
                served = version
                assert front.sync().status == 0
                assert_serves(front, served)
                version += 1
                continue
            # Without the lock nothing is known of a release, and nothing said about one.
            assert f"release {live} serves as before" in done.messages or "taking the lock" in done.messages, what
            assert front.fetch() == (200, f"page {served} {served}\n"), what
            assert front.fetch("/amorce/health")[0] == 200 and front.live == live, what
            first = log.read_text().split()[0]
            if error in ("ENOSPC", "EDQUOT") and all(line.split()[0] == first for line in injected):
                assert done.status == 73, what
            assert done.status < 100, what
        assert MARK not in done.messages, what
        version += 1
    front.publish(str(version))
    done = front.sync()
    assert done.status == 0, done
    assert_serves(front, version)
    assert_like_the_orchestrator(front)
    assert [str(path) for path in front.root.rglob("*.amorce-new")] == []
    assert MARK not in front.everything_said()


def test_a_disk_that_stays_broken(front, base):
    """From one rename of the switch on, every other fails too, so that nothing can be taken back. What is served is a whole page
    of one version all the same, and the next run that can puts everything right."""
    calls, log = "rename,renameat,renameat2", base / "calls"
    assert front.boot().status == 0
    front.publish("2")
    assert traced(front, calls, log).status == 0
    first = log.read_text().split()[0]
    own = [line for line in log.read_text().splitlines() if line.split()[0] == first and "resumed>" not in line]
    wanted = [number for number, line in enumerate(own, 1)
              if re.search(r"switch\.json|sites-available|pool\.d|/current|live\.json", line)]
    assert len(wanted) >= 5
    served, version, uncertain = 2, 3, 0
    for number in wanted[::2]:
        front.publish(str(version))
        done = traced(front, calls, log, f"error=EIO:when={number}+")
        what = (number, done)
        assert done.status != 0 and "INJECTED" in log.read_text(), what
        uncertain += "uncertain" in done.messages
        assert front.fetch() in [(200, f"page {each} {each}\n") for each in (served, version)], what
        done = front.sync()
        assert done.status == 0, (number, done)
        served = version
        assert_serves(front, served)
        assert_like_the_orchestrator(front)
        version += 1
    assert uncertain >= 1
    assert [str(path) for path in front.root.rglob("*.amorce-new")] == []


# Read-only, missing, elsewhere

@root_only
def test_a_read_only_disk(front):
    with mounted(front.root / "var/www", "size=16m") as www:
        subprocess.run(["mount", "-o", "remount,ro", www], check=True)
        done = front.boot()
        assert done.status == 77 and "Read-only file system" in done.messages, done
        assert front.live is None and not front.is_ready
        subprocess.run(["mount", "-o", "remount,rw", www], check=True)
        assert front.boot().status == 0
        first = front.live
        front.publish("2")
        subprocess.run(["mount", "-o", "remount,ro", www], check=True)
        done = front.sync()
        assert done.status == 77 and f"release {first} serves as before" in done.messages, done
        assert_serves(front, 1, first)
        subprocess.run(["mount", "-o", "remount,rw", www], check=True)
        assert front.sync().status == 0
        assert_serves(front, 2)


@root_only
def test_releases_on_a_file_system_of_their_own(front):
    with mounted(front.site / "releases", "size=16m"):
        assert front.boot().status == 0
        front.publish("2")
        assert front.sync().status == 0
        assert_serves(front, 2)
        assert_like_the_orchestrator(front)


def test_a_site_that_is_a_symlink_stays_one(front):
    elsewhere = front.base / "data/site"
    elsewhere.mkdir(parents=True)
    (front.root / "var/www").mkdir(parents=True)
    front.site.symlink_to(elsewhere)
    assert front.boot().status == 0
    front.publish("2")
    assert front.sync().status == 0
    assert_serves(front, 2)
    assert os.readlink(front.site) == str(elsewhere) and (elsewhere / "current").is_symlink()
    assert_like_the_orchestrator(front)


def test_a_state_folder_that_is_missing_or_open(front):
    state = front.root / "var/lib/amorce"
    assert front.boot().status == 0
    assert state.stat().st_mode & 0o7777 == 0o700
    os.chmod(state, 0o777)
    front.publish("2")
    assert front.sync().status == 0
    assert state.stat().st_mode & 0o7777 == 0o700
    assert_serves(front, 2)
    # Without its records a front cannot know what is live: it boots anew, and visitors do not notice.
    subprocess.run(["mv", state, front.base / "lost"], check=True)
    front.publish("3")
    done = front.sync()
    assert done.status == 1 and "amorce boot" in done.messages, done
    assert front.fetch() == (200, "page 2 2\n")
    assert front.boot().status == 0
    assert_serves(front, 3)
    for path in state.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path.is_relative_to(state / "originals"), path


@pytest.mark.parametrize("place", ["run/amorce/status.json", "run/amorce/status.json.amorce-new", "var/lib/amorce/last-report.json"])
def test_a_status_that_cannot_be_written_fails_no_boot(front, place):
    # A folder with something in it: neither replaced nor removed.
    (front.root / place / "x").mkdir(parents=True)
    done = front.boot()
    assert done.status == 0, done
    assert_serves(front, 1)


@pytest.mark.parametrize("place", ["var/lib/amorce", "var/www", "var/www/boutique", "var/www/boutique/releases"])
def test_a_file_where_a_folder_must_be(front, place):
    (front.root / place).parent.mkdir(parents=True, exist_ok=True)
    (front.root / place).write_text("a file")
    done = front.boot()
    assert done.status != 0 and str(front.root / place) in done.messages, done
    assert (front.root / place).read_text() == "a file"
    assert not front.is_ready
