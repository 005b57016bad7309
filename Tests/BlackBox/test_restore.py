"""`amorce restore` alone: every format from every kind of store, what it refuses and what is left then, and how much memory
and how many descriptors it needs for it."""

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import pytest

from fault_servers import BucketServer, StallingProxy, WebServer, sha256
from scratch_front import Run, binary, free_port, tree

SUFFIXES = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".zip"]
MARK = "MADE-UP-SECRET"


def restore(source, target, *words, environment=None, wrapper=(), timeout=120):
    done = subprocess.run(
        [*wrapper, binary(), "restore", "--from", str(source), "--to", str(target), *words], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", timeout=timeout,
        env={"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true", **(environment or {})})
    return Run(done, done.stdout, done.stderr)


def archive(folder, place):
    """`folder` as an archive of the kind that the name of `place` says, made by the usual program."""
    name = str(place)
    if name.endswith(".zip"):
        subprocess.run(["zip", "-qry", name, "."], cwd=folder, check=True)
        return place
    flag = {".gz": "--gzip", "tgz": "--gzip", "zst": "--zstd", ".xz": "--xz", "bz2": "--bzip2", "tar": "--no-auto-compress"}[name[-3:]]
    subprocess.run(["tar", flag, "-cf", name, "-C", folder, "."], check=True)
    return place


def assert_nothing_left(target):
    """Neither the folder, nor anything beside it that a restore made."""
    assert not target.exists()
    assert [path.name for path in target.parent.iterdir() if target.name in path.name] == []


@pytest.fixture(scope="module")
def shelf():
    """A site, and a folder `acme/boutique` with one archive of it in every format."""
    base = Path(tempfile.mkdtemp(prefix="amorce-restore-"))
    site = base / "site"
    (site / "a/b c/ü").mkdir(parents=True)
    chance = random.Random(7)
    for number in range(30):
        (site / f"a/b c/{number}.txt").write_text(f"line {number}\n" * (number * 50))
    (site / "a/random").write_bytes(chance.randbytes(3 << 20))
    (site / "a/empty").write_bytes(b"")
    (site / "a/b c/ü/é").write_text("x")
    (site / "a/link").symlink_to("b c/3.txt")
    os.chmod(site / "a/b c/4.txt", 0o640)
    os.chmod(site / "a/b c/5.txt", 0o755)
    os.chmod(site / "a/b c", 0o750)
    (site / "index.php").write_text("<?php\n")
    for path in site.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    folder = base / "store/acme/boutique"
    folder.mkdir(parents=True)
    for suffix in SUFFIXES:
        archive(site, folder / ("site" + suffix))
    yield base
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def bucket(shelf):
    with BucketServer(shelf / "store") as server:
        yield server


# What arrives

@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_from_every_store(shelf, bucket, base, suffix):
    expected = tree(shelf / "site")
    name = "site" + suffix
    folder = shelf / "store/acme/boutique"
    alone = base / "alone"
    alone.mkdir()
    shutil.copy2(folder / name, alone / ("20261124T030000Z" + suffix))
    with WebServer(folder) as whole, WebServer(folder, hasRanges=False) as plain:
        sources = [folder / name, f"file://{folder}/{name}", f"file://{alone}/", f"{whole.url}/{name}", f"{plain.url}/{name}",
                   f"s3://acme/boutique/{name}"]
        for number, source in enumerate(sources):
            target = base / f"out{number}"
            done = restore(source, target, "--json", "--memory", "4MiB", environment=bucket.environment)
            assert done.status == 0, (source, done)
            assert tree(target) == expected, source
            assert target.stat().st_mode & 0o7777 == 0o755
            report = json.loads(done.output)
            assert report["sha256"] == sha256(folder / name) and report["files"] == 34
            assert MARK not in done.messages + done.output
        assert any("Range" in headers for _, _, headers in whole.requests)


def test_the_newest_of_a_bucket(base):
    folder = base / "store/acme/many"
    folder.mkdir(parents=True)
    for stamp in ["20261122T030000Z", "20261124T030000Z", "20261123T030000Z"]:
        (base / "site").mkdir(exist_ok=True)
        (base / "site/stamp").write_text(stamp)
        archive(base / "site", folder / f"{stamp}.tar.gz")
        (folder / f"{stamp}.tar.gz.sha256").write_text(sha256(folder / f"{stamp}.tar.gz") + "\n")
    (folder / "20261125T030000Z.tar.gz").write_bytes(b"unfinished")
    with BucketServer(base / "store") as bucket:
        done = restore("s3://acme/many/", base / "out", environment=bucket.environment)
        assert done.status == 0 and (base / "out/stamp").read_text() == "20261124T030000Z", done
        done = restore("s3://acme/many/", base / "out2", "--region", "eu-west-1", "--endpoint", bucket.url, environment={
            key: value for key, value in bucket.environment.items() if key not in ("AWS_REGION", "AWS_ENDPOINT_URL_S3")})
        assert done.status == 0, done


def test_a_new_or_an_empty_folder_and_no_other(shelf, base):
    source = shelf / "store/acme/boutique/site.tar.gz"
    empty = base / "empty"
    empty.mkdir()
    assert restore(source, empty).status == 0
    assert tree(empty) == tree(shelf / "site")
    full = base / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    done = restore(source, full)
    assert done.status == 1 and "is not empty" in done.messages, done
    assert (full / "mine").read_text() == "mine" and [path.name for path in full.iterdir()] == ["mine"]
    # A relative path is relative to where the person stands; what a killed restore left beside it is in nobody's way.
    (base / "relative.amorce-new").mkdir()
    (base / "relative.amorce-new/half").write_text("half")
    # The `.` that the names begin with counts as a component, as it does for tar.
    done = subprocess.run([binary(), "restore", "--from", source, "--to", "relative", "--strip-components", "2"], cwd=base,
                          capture_output=True)
    assert done.returncode == 0, done
    assert (base / "relative/b c").is_dir() and sorted(path.name for path in base.iterdir()) == ["empty", "full", "relative"]


# What is refused

def test_a_checksum_that_does_not_fit(shelf, bucket, base):
    folder = base / "store/acme"
    folder.mkdir(parents=True)
    place = shutil.copy2(shelf / "store/acme/boutique/site.tar.zst", folder)
    beside = Path(str(place) + ".sha256")
    for text, said in [("0" * 64 + "  site.tar.zst\n", "SHA-256"), ("", "empty"), ("<html>", "no SHA-256"),
                       (sha256(place) + "  other.tar.zst\n", "another file")]:
        beside.write_text(text)
        with WebServer(folder) as web:
            for source in [place, f"file://{folder}/", f"{web.url}/site.tar.zst"]:
                done = restore(source, base / "out")
                assert done.status == 65 and said in done.messages, (source, text, done)
                assert_nothing_left(base / "out")
    beside.write_text(sha256(place) + "  site.tar.zst\n")
    assert restore(place, base / "out").status == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_off_flipped_or_followed_by_something(shelf, base, suffix):
    whole = (shelf / "store/acme/boutique" / ("site" + suffix)).read_bytes()
    middle = len(whole) // 2
    cuts = [512, 10240, middle, len(whole) - 1]
    if suffix == ".tar":
        # After the last member: nothing but the missing end mark shows it.
        cuts[-1] = (len(whole.rstrip(b"\0")) + 511) // 512 * 512
    bad = [(f"cut at {cut}", whole[:cut]) for cut in cuts] + [("followed", whole + b"<html>later</html>"), ("empty", b"")]
    if suffix == ".tar":
        # A plain tar has checksums of its heads alone.
        bad.append(("flipped", whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]))
    else:
        bad.append(("flipped", whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1:]))
    for what, data in bad:
        place = base / ("bad" + suffix)
        place.write_bytes(data)
        done = restore(place, base / "out")
        assert done.status == 65, (what, done)
        assert_nothing_left(base / "out")


def test_other_formats_under_a_known_name_run_no_program(shelf, base):
    """Row 59. libarchive, asked for everything, would run lrzip or grzip by the first bytes alone."""
    folder = shelf / "store/acme/boutique"
    contents = {
        "zip": (folder / "site.zip").read_bytes(), "zst": (folder / "site.tar.zst").read_bytes(),
        "lrz": b"LRZI\x00\x06" + bytes(64), "lzo": b"\x89LZO\x00\r\n\x1a\n" + bytes(64), "grz": b"GRZipII\x00\x02\x04:)" + bytes(64),
        "7z": b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(64), "rar": b"Rar!\x1a\x07\x01\x00" + bytes(64), "mtree": b"#mtree\n./a type=file\n",
        "uu": b"begin 644 a\n#0V%T\n`\nend\n", "compress": b"\x1f\x9d\x90" + bytes(64), "html": b"<html>sign in</html>",
        "cpio": b"070701" + b"0" * 104, "iso": bytes(32768) + b"\x01CD001\x01" + bytes(2041),
    }
    log = base / "calls"
    for what, data in contents.items():
        for suffix in [".tar.gz", ".tar"]:
            place = base / ("x" + suffix)
            place.write_bytes(data)
            done = restore(place, base / "out", wrapper=["strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", log])
            assert done.status == 65, (what, suffix, done)
            assert log.read_text().count("execve") == 1, (what, log.read_text())
            assert_nothing_left(base / "out")


def tar_of(place, *members):
    """Members are (name, type, data or link name, mode)."""
    with tarfile.open(place, "w", format=tarfile.PAX_FORMAT) as out:
        for name, kind, data, mode in (("good.txt", tarfile.REGTYPE, b"good", 0o644), *members):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, mode
            if kind == tarfile.REGTYPE:
                entry.size = len(data)
                out.addfile(entry, io.BytesIO(data))
            else:
                entry.linkname = data or ""
                entry.devmajor, entry.devminor = 1, 3
                out.addfile(entry)


FILE, LINK, HARD, DEVICE, PIPE, FOLDER = (
    tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)


@pytest.mark.parametrize("members", [
    pytest.param([("../outside", FILE, b"bad", 0o644)], id="dots"),
    pytest.param([("a/../../outside", FILE, b"bad", 0o644)], id="dots inside"),
    pytest.param([("{base}/outside", FILE, b"bad", 0o644)], id="absolute"),
    pytest.param([("out", LINK, "..", 0o777), ("out/outside", FILE, b"bad", 0o644)], id="through a symlink"),
    pytest.param([("out", LINK, "{base}/outside", 0o777)], id="absolute symlink"),
    pytest.param([("a", FOLDER, None, 0o755), ("a/out", LINK, "../../outside", 0o777)], id="symlink out"),
    pytest.param([("a", LINK, "b", 0o777), ("b", LINK, "../outside", 0o777)], id="symlinks out in two"),
    pytest.param([("out", HARD, "{base}/outside", 0o644)], id="hard link absolute"),
    pytest.param([("out", HARD, "../outside", 0o644), ("out", FILE, b"bad", 0o644)], id="hard link out"),
    pytest.param([("null", DEVICE, None, 0o666)], id="device"),
    pytest.param([("pipe", PIPE, None, 0o666)], id="pipe"),
    pytest.param([("good.txt", LINK, "elsewhere", 0o777)], id="file becomes a symlink"),
])
def test_hostile_archives_leave_the_outside_alone(base, members):
    outside = base / "outside"
    outside.write_text("untouched")
    members = [(name.format(base=base), kind, data.format(base=base) if isinstance(data, str) else data, mode)
               for name, kind, data, mode in members]
    for suffix in [".tar", ".tar.gz"]:
        place = base / ("x" + suffix)
        if suffix == ".tar":
            tar_of(place, *members)
        else:
            subprocess.run(["gzip", "-k", base / "x.tar"], check=True)
        done = restore(place, base / "target")
        assert done.status == 65, done
        assert_nothing_left(base / "target")
        assert outside.read_text() == "untouched" and outside.stat().st_nlink == 1
    assert sorted(path.name for path in base.iterdir()) == ["outside", "x.tar", "x.tar.gz"]


def test_hostile_zip(base):
    (base / "outside").write_text("untouched")
    for name in ["../outside", f"{base}/outside", "a/../../outside"]:
        with zipfile.ZipFile(base / "x.zip", "w") as out:
            out.writestr("good.txt", "good")
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = name
            out.writestr(entry, "bad")
        done = restore(base / "x.zip", base / "target")
        assert done.status == 65, done
        assert_nothing_left(base / "target")
        assert (base / "outside").read_text() == "untouched"


def test_set_uid_is_taken_off_and_the_root_stays_open(base):
    tar_of(base / "x.tar", (".", FOLDER, None, 0o000), ("tool", FILE, b"x", 0o6755), ("closed", FOLDER, None, 0o1000),
           ("closed/in", FILE, b"x", 0o000))
    done = restore(base / "x.tar", base / "out")
    assert done.status == 0, done
    modes = {name: status[1] for name, status in tree(base / "out").items()}
    assert modes == {"good.txt": 0o644, "tool": 0o755, "closed": 0o700, "closed/in": 0o600}
    assert (base / "out").stat().st_mode & 0o7777 == 0o755


def test_a_bomb_is_refused(base):
    subprocess.run("truncate -s 300M zeros && tar -c zeros | zstd -q -1 -o bomb.tar.zst", shell=True, cwd=base, check=True)
    done = restore(base / "bomb.tar.zst", base / "out")
    assert done.status == 65, done
    assert_nothing_left(base / "out")


# Stores that do not give

def test_what_a_bucket_says(bucket, base):
    good = bucket.environment
    key = "s3://acme/boutique/site.tar.gz"
    other = {**good, "AWS_SECRET_ACCESS_KEY": MARK + "-2"}
    cases = [
        ("s3://missing/", good, 78, "NoSuchBucket"),
        ("s3://missing/site.tar.gz", good, None, ""),
        ("s3://acme/boutique/none.tar.gz", good, 1, "there is no"),
        ("s3://acme/nothing/", good, 1, "s3://acme/nothing/"),
        (key, other, 77, "SignatureDoesNotMatch"),
        ("s3://acme/boutique/", other, 77, "SignatureDoesNotMatch"),
        (key, {**good, "AWS_ACCESS_KEY_ID": "AKOTHERMADEUP"}, 77, "InvalidAccessKeyId"),
        (key, {name: value for name, value in good.items() if name != "AWS_REGION"}, 78, "AWS_REGION"),
        (key, {name: value for name, value in good.items() if name != "AWS_SECRET_ACCESS_KEY"}, 77, "AWS_SECRET_ACCESS_KEY"),
        (key, {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_S3": bucket.url}, 77, "anonymous"),
    ]
    for source, environment, status, said in cases:
        done = restore(source, base / "out", environment=environment)
        assert done.status == status if status else done.status in (1, 78), (source, done)
        assert said in done.messages, (source, done)
        assert MARK not in done.messages
        assert_nothing_left(base / "out")


@pytest.mark.parametrize("status, code", [(403, 77), (404, 1), (500, 69), (503, 69)])
def test_what_a_web_server_says(base, status, code):
    with WebServer(base, status=status) as web:
        done = restore(f"{web.url}/x.tar.gz?signature={MARK}", base / "out", timeout=60)
    assert done.status == code, done
    assert MARK not in done.messages
    assert_nothing_left(base / "out")


@pytest.mark.parametrize("source", ["http://127.0.0.1:{port}/x.tar.gz", "s3://acme/x.tar.gz", "s3://acme/"])
def test_nobody_listens(base, source):
    port = free_port()
    environment = {**BucketServer(base).environment, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"}
    # Six tries, the pauses together at most 6.2 s; the bound is for a busy machine.
    done = restore(source.format(port=port), base / "out", environment=environment, timeout=30)
    assert done.status == 69 and "refused the connection" in done.messages, done
    assert_nothing_left(base / "out")


def test_usage(base):
    for source in ["ftp://127.0.0.1/x.tar.gz", "s3://x/y.tar.gz", "https:///x.tar.gz"]:
        done = restore(source, base / "out", environment=BucketServer(base).environment)
        assert done.status == 64, done
    assert restore(base / "x.tar.gz", base / "out", "--connections", "0").status == 64
    (base / "x.rar").write_bytes(b"Rar!")
    assert restore(base / "x.rar", base / "out").status == 65
    assert_nothing_left(base / "out")


def test_a_broken_connection_is_continued(shelf, base):
    """A proxy that cuts each connection after some bytes: what arrives is whole all the same."""
    folder = shelf / "store/acme/boutique"
    with WebServer(folder) as web, CuttingProxy(web.port, 700_000) as proxy:
        done = restore(f"http://127.0.0.1:{proxy.port}/site.tar.gz", base / "out", "--memory", "8MiB", timeout=60)
    assert done.status == 0 and proxy.connections > 3, (proxy.connections, done)
    assert tree(base / "out") == tree(shelf / "site")


class CuttingProxy(StallingProxy):
    """Closes the connection where the other one keeps still."""

    @staticmethod
    def _copy(source, target, left):
        StallingProxy._copy(source, target, left)
        for each in (source, target):
            try:
                each.shutdown(2)
            except OSError:
                pass


# Memory and descriptors

LIMIT = 64 << 10   # KiB, of the resident set at its largest


MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print("PEAK", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


def peak(done):
    """KiB. Measured by a small process in between: what forks hands its own size on as the child's."""
    return int(re.search(r"^PEAK (\d+)$", done.messages, re.M)[1])


MEASURED = [sys.executable, "-S", "-E", "-c", MEASURE]


def write_large(place, size):
    """An archive of `size` bytes as stored, of content that is compressible by a tenth or so. The data are compressed once and
    used again and again: members of gzip and frames of zstd may follow each other."""
    chance = random.Random(1)
    block = b"".join(chance.randbytes(60 << 10) + b"text that is alike " * 430 for _ in range(240))
    block += bytes(-len(block) % 512)

    def compress(data):
        if place.name.endswith(".gz"):
            engine = zlib.compressobj(1, zlib.DEFLATED, 31)
            return engine.compress(data) + engine.flush()
        return subprocess.run(["zstd", "-q", "-3", "-c"], input=data, capture_output=True, check=True).stdout

    packed = compress(block)
    count = size // len(packed) + 1
    with open(place, "wb") as out:
        for number in range(count):
            entry = tarfile.TarInfo(f"part{number:04}")
            entry.size = len(block)
            out.write(compress(entry.tobuf()))
            out.write(packed)
        out.write(compress(bytes(1024)))
    return count * len(block), count


@pytest.fixture(scope="module")
def roomy():
    """A file system for 5 GB in memory where this may be mounted, else a folder on disk."""
    base = Path(tempfile.mkdtemp(prefix="amorce-large-"))
    isMounted = os.getuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5g", "none", base]).returncode == 0
    yield base
    if isMounted:
        subprocess.run(["umount", "-l", base], check=True)
    shutil.rmtree(base)


def is_static():
    return subprocess.run(["ldd", binary()], capture_output=True).returncode != 0


@pytest.mark.skipif("not is_static()", reason="a debug build has its libraries in memory besides")
@pytest.mark.parametrize("suffix", [".tar.zst", ".tar.gz"])
def test_two_gigabytes_within_64_MiB(roomy, suffix):
    place = roomy / ("large" + suffix)
    try:
        size, count = write_large(place, 2_000_000_000)
        assert place.stat().st_size > 2_000_000_000
        with WebServer(roomy, meet=8) as web:
            for source in [f"file://{place}", f"{web.url}/{place.name}"]:
                done = restore(source, roomy / "out", "--json", "--connections", "8", wrapper=MEASURED, timeout=200)
                assert done.status == 0, done
                report = json.loads(done.output)
                assert (report["files"], report["bytes"]) == (count, size)
                print(source, peak(done))
                assert peak(done) < LIMIT, (source, peak(done))
                shutil.rmtree(roomy / "out")
            assert web.mostTogether == 8
    finally:
        shutil.rmtree(roomy / "out", ignore_errors=True)
        place.unlink(missing_ok=True)


def test_many_ranges_with_few_descriptors(base):
    (base / "site").mkdir()
    (base / "site/random").write_bytes(random.Random(3).randbytes(24 << 20))
    archive(base / "site", base / "x.tar")
    with WebServer(base, meet=41) as web:
        done = restore(f"{web.url}/x.tar", base / "out", "--connections", "45", "--memory", "4MiB",
                       wrapper=["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"])
        assert done.status == 0, done
        assert web.mostTogether > 40
    assert tree(base / "out") == tree(base / "site")


def test_a_whole_boot_and_sync_within_64_MiB(front):
    """With all that is run for it, rsync and the checks of the services; a sync that copies nothing it need not."""
    (front.base / "site/large").write_bytes(random.Random(5).randbytes(150 << 20))
    shutil.copy2(front.base / "site/large", front.orchestrator / "large")
    front.backup(suffix=".tar.gz", stamp="20261124T040000Z")
    for command in ["boot", "sync"]:
        done = front.run(command, wrapper=["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *MEASURED])
        assert done.status == 0, done
        assert peak(done) < LIMIT, (command, peak(done))
        front.publish("2")
    assert front.fetch() == (200, "page 2 2\n")
