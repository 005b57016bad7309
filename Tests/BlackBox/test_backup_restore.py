"""Backups that amorce made, restored while the store, the disk or the run itself fails. Rows 24, 31 to 39, 57, 62, 63 and 66: the
folder is absent or whole, and a run after one that was killed goes on where that one was."""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from backup_trees import amorce, backups_in, differences, make_tree
from fault_servers import StoreProxy, WebServer
from scratch_front import binary
from test_backup_store import Bucket, error, moto, through
from test_disk import mounted, root_only
from test_restore import assert_nothing_left

@pytest.fixture(scope="module")
def shelf():
    """A site of 14 MB and a folder with its backup: a dozen frames and a file in pieces."""
    base = Path(tempfile.mkdtemp(prefix="amorce-backup-"))
    base.chmod(0o755)
    make_tree(base / "site", files=80, size=80_000, large=9_000_000)
    (base / "store").mkdir()
    done = amorce("backup", "--from", base / "site", "--to", base / "store", "--app", "boutique")
    assert done.status == 0, done
    (base / "store").chmod(0o755)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def key(shelf):
    return backups_in(shelf / "store")[0][0]


def restore(source, target, *words, **options):
    return amorce("restore", "--from", source, "--to", target, *words, **options)


def assert_whole(shelf, target):
    assert differences(shelf / "site", target) == []
    assert target.stat().st_mode & 0o7777 == 0o755
    # A killed run leaves its lock's file, which means nothing by itself.
    left = {path.name for path in target.parent.iterdir() if path.name.startswith(target.name + ".")}
    assert left <= {target.name + ".amorce-lock"}


# Stores

@pytest.mark.parametrize("what, status", [
    (lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:] if len(data) > 101 else data, 65),
    (error(403, "AccessDenied"), 77), (error(500, "InternalError"), 69), ("reset", 69), (error(404, "NoSuchKey"), 1),
], ids=["flipped", "403", "500", "reset", "404"])
def test_a_store_that_fails_for_good(shelf, base, key, what, status):
    with WebServer(shelf / "store") as web, StoreProxy(
            web.port, lambda ask: what if ask.method == "GET" and ask.path.endswith(".zst") else None) as proxy:
        done = restore(f"{proxy.url}/{key}", base / "out", timeout=100)
        assert done.status == status, done
        assert_nothing_left(base / "out")


@pytest.mark.parametrize("what", [error(503, "SlowDown"), error(500, "InternalError"), "reset", "lose", lambda data: data[:len(data) // 2],
                                  lambda data: data[:70_000]],
                         ids=["503", "500", "reset", "answers lost", "halves", "slices"])
def test_a_store_that_fails_now_and_then(shelf, base, key, what):
    chance = random.Random(3)
    with WebServer(shelf / "store") as web, StoreProxy(
            web.port, lambda ask: what if ask.method == "GET" and chance.random() < 0.4 else None) as proxy:
        done = restore(f"{proxy.url}/{key}", base / "out", "--memory", "4MiB", timeout=100)
        assert done.status == 0, done
    assert_whole(shelf, base / "out")


def test_a_stall_is_ended_by_the_deadline(shelf, base, key):
    with WebServer(shelf / "store", stallAt=3_000_000) as web:
        done = restore(f"{web.url}/{key}", base / "out", "--deadline", "3s", timeout=60)
        assert done.status == 124, done
        assert not (base / "out").exists()
        web.stallAt, web.sent = None, 0
        # What has come is kept for the next one.
        done = restore(f"{web.url}/{key}", base / "out", timeout=60)
        assert done.status == 0, done
    assert_whole(shelf, base / "out")


@pytest.fixture
def two(shelf, moto):
    """A bucket with a backup of the site, and one of another day before it."""
    bucket = Bucket(moto)
    stamps = ["20261120T030000Z", "20261121T030000Z"]
    name, = backups_in(shelf / "store")[0]
    other = Path(tempfile.mkdtemp(prefix="amorce-backup-"))
    make_tree(other / "site", seed=9, files=10)
    (other / "store").mkdir()
    assert amorce("backup", "--from", other / "site", "--to", other / "store", "--app", "boutique").status == 0
    for stamp, folder in zip(stamps, [other / "store", shelf / "store"]):
        for suffix in (".framed.tar.zst", ".framed.tar.zst.manifest"):
            path, = [path for path in folder.iterdir() if path.name.endswith(suffix)]
            bucket.put(f"boutique/{stamp}{suffix}", path.read_bytes())
    bucket.older, bucket.newer = (f"boutique/{stamp}.framed.tar.zst" for stamp in stamps)
    yield bucket, other / "site"
    shutil.rmtree(other)


@pytest.mark.parametrize("what", ["both", "object", "manifest"])
@pytest.mark.parametrize("moment", ["list", "stat", "manifest", "object"])
def test_removed_while_it_is_read(shelf, base, two, what, moment):
    """Row 38, and a prune at the same time: the one before is taken. Bytes that are pinned may go, if all of them have come."""
    bucket, older = two

    def fault(ask):
        isObject, isManifest = ask.path.endswith(bucket.newer), ask.path.endswith(bucket.newer + ".manifest")
        now = {"list": False, "stat": isObject and ask.method == "HEAD", "manifest": isManifest and ask.method == "GET",
               "object": isObject and ask.method == "GET"}[moment]
        if moment == "list":
            # After the listing is made: the next request of any kind finds it gone.
            now = "list-type" not in ask.query and ask.path.startswith(f"/{bucket.name}/")
        if now:
            if what != "object":
                bucket.remove(bucket.newer + ".manifest")
            if what != "manifest":
                bucket.remove(bucket.newer)

    with StoreProxy(bucket.moto.port, fault) as proxy:
        done = restore(bucket.url, base / "out", "--json", environment=through(proxy))
    assert done.status == 0, done
    if json.loads(done.output)["key"] == bucket.newer:
        assert what == "manifest" and moment == "object", done
        assert_whole(shelf, base / "out")
    else:
        assert "looking again" in done.messages or moment == "list", done
        assert differences(older, base / "out") == []


def test_removed_and_named(base, two):
    bucket, _ = two

    def fault(ask):
        if ask.path.endswith(bucket.newer) and ask.method == "GET":
            bucket.remove(bucket.newer)

    with StoreProxy(bucket.moto.port, fault) as proxy:
        done = restore(f"s3://{bucket.name}/{bucket.newer}", base / "out", environment=through(proxy))
    assert done.status == 1, done
    assert_nothing_left(base / "out")


def test_replaced_while_it_is_read(base, two):
    """Row 37. Bytes of two objects never mix."""
    bucket, older = two

    def fault(ask):
        if ask.path.endswith(bucket.newer) and ask.method == "GET":
            proxy.fault = lambda ask: None
            for suffix in (".manifest", ""):
                bucket.put(bucket.newer + suffix, bucket.get(bucket.older + suffix))

    with StoreProxy(bucket.moto.port, fault) as proxy:
        done = restore(bucket.url, base / "out", environment=through(proxy))
    assert done.status == 0 and "replaced" in done.messages and "looking again" in done.messages, done
    assert differences(older, base / "out") == []


@pytest.mark.parametrize("what", ["object", "manifest"])
def test_one_of_two_replaced(base, two, what):
    """An object with the manifest of another one is refused."""
    bucket, _ = two
    suffix = "" if what == "object" else ".manifest"
    bucket.put(bucket.newer + suffix, bucket.get(bucket.older + suffix))
    done = restore(bucket.url, base / "out", environment=bucket.moto.environment)
    assert done.status == 65 and "manifest" in done.messages, done
    assert_nothing_left(base / "out")


# Disks

@root_only
@pytest.mark.parametrize("options", ["size=6m", "nr_inodes=60", "size=14500k", "nr_inodes=110"])
def test_no_room(shelf, base, key, options):
    with mounted(base / "disk", options) as disk:
        before = os.statvfs(disk)
        for source in (f"{shelf}/store/", shelf / "store" / key):
            done = restore(source, disk / "out")
            assert done.status == 73, done
            assert "df -h" in done.messages, done
            assert_nothing_left(disk / "out")
            after = os.statvfs(disk)
            assert (after.f_bfree, after.f_ffree) == (before.f_bfree, before.f_ffree)
        subprocess.run(["mount", "-o", "remount,size=60m,nr_inodes=4000", disk], check=True)
        assert restore(f"{shelf}/store/", disk / "out").status == 0
        assert_whole(shelf, disk / "out")


@pytest.mark.parametrize("call", [
    "write", "mkdirat", "syncfs", "utimensat", "symlinkat", "linkat", "fchmod", "openat2,openat", "rename,renameat,renameat2",
    "fsync", "close"])
def test_a_call_that_fails(shelf, base, call):
    """Row 63. Whichever call of that kind it is, either it did not matter or nothing is left."""
    (base / "space").mkdir()
    target = base / "space/out"
    traced = ["strace", "-f", "-qq", "-o", base / "calls", "-e", f"trace={call}"]
    done = restore(f"{shelf}/store/", target, wrapper=traced)
    assert done.status == 0, done
    shutil.rmtree(target)
    counts = {}
    for line in (base / "calls").read_text().splitlines():
        if "resumed" not in line:
            counts[line.split()[0]] = counts.get(line.split()[0], 0) + 1
    most = max(counts.values(), default=0)
    chance = random.Random(call)
    numbers = sorted({1, most, *[chance.randrange(1, most + 1) for _ in range(3)]}) if most else []
    failed = 0
    for number in numbers:
        done = restore(f"{shelf}/store/", target, wrapper=[*traced, "-e", f"inject={call}:error=EIO:when={number}"])
        what = (call, number, done, [line for line in (base / "calls").read_text().splitlines() if "INJECTED" in line][:3])
        if done.status == 0:
            assert_whole(shelf, target)
            shutil.rmtree(target)
        else:
            failed += 1
            assert done.status in (1, 65, 69, 127), what
            assert not target.exists(), what
            # What could not be removed is removed by the next one.
    done = restore(f"{shelf}/store/", target)
    assert done.status == 0, done
    assert_whole(shelf, target)
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    assert failed or call in ("fchmod", "close", "openat2,openat", "fsync", "write", "linkat"), numbers


# Kills

def killed(number, call="all", followed="-f"):
    return ["strace", followed, "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]


# A release and a folder are made of these.
STEPS = "openat2,openat,mkdirat,write,utimensat,symlinkat,linkat,fchmod,syncfs,renameat2,rename,renameat,unlinkat,fsync,ftruncate,close"


def test_killed_at_many_calls(shelf, base):
    """Row 66. Each kill is followed by a run that ends whole."""
    target = base / "out"
    for number in [1, 8, 30, 60, 85, 110, 140, 180, 220]:
        done = restore(f"{shelf}/store/", target, wrapper=killed(number, STEPS))
        if done.status == 0:
            assert_whole(shelf, target)
            shutil.rmtree(target)
            break
        assert done.status in (-9, 137), done
        assert not target.exists()
        done = restore(f"{shelf}/store/", target)
        assert done.status == 0, (number, done)
        assert_whole(shelf, target)
        shutil.rmtree(target)
    assert number > 60


def test_killed_at_the_last_renames(shelf, base):
    target = base / "out"
    for call in ("syncfs", "rename,renameat,renameat2", "fsync"):
        done = restore(f"{shelf}/store/", target, wrapper=killed(1, call))
        assert done.status in (-9, 137), (call, done)
        # It is whole and has its name when only the name is not on disk yet.
        assert target.exists() == (call == "fsync")
    assert_whole(shelf, target)


def test_killed_again_and_again(shelf, base):
    """A run on top of what several killed ones left."""
    target, chance = base / "out", random.Random(11)
    kills = 0
    for _ in range(12):
        done = restore(f"{shelf}/store/", target, wrapper=killed(chance.randrange(2, 140), STEPS))
        kills += done.status in (-9, 137)
        if target.exists():
            assert_whole(shelf, target)
            shutil.rmtree(target)
    assert kills > 2
    assert restore(f"{shelf}/store/", target).status == 0
    assert_whole(shelf, target)


def interrupted(web, source, target, how, after, key):
    """A restore that is ended when so many bytes of the backup have come; what the store had sent by then."""
    with subprocess.Popen([binary(), "restore", "--from", source, "--to", target, "--memory", "4MiB"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]}) as process:
        deadline = time.monotonic() + 60
        while web.sent < after:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        # What is on its way gets written.
        time.sleep(0.5)
        process.send_signal(how)
        messages = process.communicate(timeout=60)[1]
    assert process.returncode == (-9 if how == signal.SIGKILL else 128 + how), messages
    assert not target.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_run_goes_on_with_what_is_missing(base, how):
    make_tree(base / "site", files=60, size=500_000)
    (base / "store").mkdir()
    assert amorce("backup", "--from", base / "site", "--to", base / "store", "--app", "boutique").status == 0
    name, = backups_in(base / "store")[0]
    size = (base / "store" / name).stat().st_size
    with WebServer(base / "store", stallAt=20_000_000) as web:
        source, target = f"{web.url}/{name}", base / "out"
        interrupted(web, source, target, how, 18_000_000, name)
        web.stallAt, web.sent = None, 0
        done = restore(source, target)
        assert done.status == 0, done
        assert web.sent < size - 10_000_000, (web.sent, size)
        assert differences(base / "site", target) == []
        # Of another backup nothing is taken over, whatever lies there.
        shutil.rmtree(target)
        web.stallAt, web.sent = 20_000_000, 0
        interrupted(web, source, target, how, 18_000_000, name)
        make_tree(base / "site2", seed=5, files=10)
        (base / "store2").mkdir()
        assert amorce("backup", "--from", base / "site2", "--to", base / "store2", "--app", "boutique").status == 0
        assert restore(f"{base}/store2/", target).status == 0
        assert differences(base / "site2", target) == []
        assert sorted(path.name for path in base.iterdir()) == ["out", "site", "site2", "store", "store2"]


def test_two_restores_into_one_folder(shelf, base, key):
    """Row 70. The second one leaves the first one's work alone."""
    with WebServer(shelf / "store", stallAt=3_000_000) as web:
        with subprocess.Popen([binary(), "restore", "--from", f"{web.url}/{key}", "--to", base / "out"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}) as first:
            deadline = time.monotonic() + 60
            while not (base / "out.amorce-new.frames").exists() or web.sent < 2_000_000:
                assert time.monotonic() < deadline and first.poll() is None
                time.sleep(0.02)
            done = restore(f"{shelf}/store/", base / "out")
            assert done.status == 75 and not (base / "out").exists(), done
            first.kill()
            first.wait()
    assert restore(f"{shelf}/store/", base / "out").status == 0
    assert_whole(shelf, base / "out")


def test_killed_while_it_takes_a_failed_restore_away(base):
    """What is half removed is not gone on with."""
    make_tree(base / "site", files=60, size=200_000)
    (base / "store").mkdir()
    assert amorce("backup", "--from", base / "site", "--to", base / "store", "--app", "boutique").status == 0
    name, = backups_in(base / "store")[0]
    archive = base / "store" / name
    good = archive.read_bytes()
    # The last frame with files is not what was stored, so that nearly all is written by the time it fails.
    archive.write_bytes(good[:-20_000] + bytes([good[-20_000] ^ 1]) + good[-19_999:])
    done = restore(f"{base}/store/", base / "out", wrapper=killed(10, "unlinkat"))
    assert done.status in (-9, 137), done
    archive.write_bytes(good)
    done = restore(f"{base}/store/", base / "out")
    assert done.status == 0, done
    assert differences(base / "site", base / "out") == []


def test_what_another_user_has_left_is_not_gone_on_with(shelf, base):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    staging = base / "out.amorce-new"
    staging.mkdir()
    os.chown(staging, 65534, 65534)
    done = restore(f"{shelf}/store/", base / "out")
    assert done.status == 77 and "no folder of this user" in done.messages, done
    staging.rmdir()
    assert restore(f"{shelf}/store/", base / "out").status == 0
    assert_whole(shelf, base / "out")


def test_the_folder_has_the_mode_of_the_one_that_was_backed_up(shelf, base):
    make_tree(base / "site", files=3)
    (base / "site").chmod(0o750)
    (base / "store").mkdir()
    assert amorce("backup", "--from", base / "site", "--to", base / "store", "--app", "boutique").status == 0
    assert restore(f"{base}/store/", base / "out").status == 0
    assert (base / "out").stat().st_mode & 0o7777 == 0o750
    assert sorted(path.name for path in base.iterdir()) == ["out", "site", "store"]
