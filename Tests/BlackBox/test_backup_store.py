"""`amorce backup` into buckets: parts, ranges that the store copies, roles that may little, and stores and runs that fail in the
middle. Rows 24, 27 and 46 to 48: either there is a whole backup, or nothing passes for one."""

import json
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from backup_trees import amorce, differences, make_tree, unpacked
from fault_servers import Ministack, Moto, StoreProxy, keys
from scratch_front import binary

MIB = 1 << 20


@pytest.fixture(scope="module")
def moto():
    with Moto() as server:
        yield server


@pytest.fixture(scope="module")
def small():
    """A site whose backup has two parts."""
    base = Path(tempfile.mkdtemp(prefix="amorce-backup-"))
    yield make_tree(base / "site", files=13, size=800_000)
    shutil.rmtree(base)


class Bucket:
    """An empty bucket of moto's, and what lies in it."""

    number = 0

    def __init__(self, moto):
        Bucket.number += 1
        self.name = f"acme{Bucket.number}"
        self.moto, self.client = moto, moto.client()
        self.client.create_bucket(Bucket=self.name)
        self.url = f"s3://{self.name}/boutique/"

    def keys(self):
        return sorted(each["Key"].removeprefix("boutique/") for each in self.client.list_objects_v2(Bucket=self.name).get("Contents", []))

    def uploads(self):
        return self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])

    def put(self, key, data):
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key):
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def remove(self, key):
        self.client.delete_object(Bucket=self.name, Key=key)


@pytest.fixture
def bucket(moto):
    return Bucket(moto)


def through(proxy):
    return keys(Moto.key, Moto.secret, proxy.url)


def backup(site, bucket, *words, environment=None, **options):
    return amorce("backup", "--from", site, "--to", bucket.url, "--app", "boutique", "--json", *words,
                  environment=environment or bucket.moto.environment, **options)


def assert_nothing_passes(bucket, isAborted=True):
    """No backup is there for anyone, whatever else may be."""
    assert [key for key in bucket.keys() if key.endswith(".manifest")] == []
    if isAborted:
        assert bucket.uploads() == []
    done = amorce("verify", bucket.url, environment=bucket.moto.environment)
    assert done.status == 1 and "there is no" in done.messages, done


def assert_next_is_fine(site, bucket):
    time.sleep(1.1)
    done = backup(site, bucket)
    assert done.status == 0, done
    done = amorce("verify", bucket.url, environment=bucket.moto.environment)
    assert done.status == 0, done


# Parts and copies

def test_a_small_change_costs_little(base, bucket):
    site = make_tree(base / "site", files=20, size=2_000_000, large=9_000_000)
    first = backup(site, bucket)
    assert first.status == 0, first
    (site / "lib/deep/er/file0015").write_bytes(b"changed")
    time.sleep(1.1)
    with StoreProxy(bucket.moto.port) as proxy:
        done = backup(site, bucket, environment=through(proxy))
    assert done.status == 0, done
    made = json.loads(done.output)
    assert made["copiedFrom"] == json.loads(first.output)["key"] and made["copied"] > 32_000_000 > 16_000_000 > made["sent"]
    copies = [headers for _, _, headers in proxy.requests if "x-amz-copy-source" in {name.lower() for name in headers}]
    assert copies
    for headers in copies:
        lower = {name.lower(): value for name, value in headers.items()}
        start, end = map(int, lower["x-amz-copy-source-range"].removeprefix("bytes=").split("-"))
        assert end - start + 1 >= 5 * MIB and lower["x-amz-copy-source-if-match"]
    # Only the manifest of the earlier one was read.
    assert proxy.sent < 200_000
    # The first one may go: nothing of it is needed.
    done = amorce("backups", bucket.url, "--prune", "keep-last=1", environment=bucket.moto.environment)
    assert done.status == 0, done
    assert bucket.keys() == [made["key"].removeprefix("boutique/"), made["key"].removeprefix("boutique/") + ".manifest"]
    done = amorce("restore", "--from", bucket.url, "--to", base / "out", environment=bucket.moto.environment)
    assert done.status == 0 and differences(site, base / "out") == [], done
    (base / "object").write_bytes(bucket.get(made["key"]))
    by_hand = differences(site, unpacked(base / "object", base / "by-hand"), window="0")
    assert [line for line in by_hand if not line.endswith(" ./")] == []
    assert bucket.uploads() == []


def test_the_store_of_another_make(base, small):
    """rclone's server, which knows no conditional writes, checks every signature."""
    from fault_servers import BucketServer
    (base / "store/acme").mkdir(parents=True)
    with BucketServer(base / "store") as server:
        for number in range(2):
            done = amorce("backup", "--from", small, "--to", "s3://acme/boutique/", "--app", "boutique", "--json",
                          environment=server.environment)
            assert done.status == 0, done
            time.sleep(1.1)
        listed = json.loads(amorce("backups", "s3://acme/boutique/", "--json", environment=server.environment).output)
        assert [each["state"] for each in listed] == ["complete", "complete"]
        assert amorce("verify", "s3://acme/boutique/", environment=server.environment).status == 0
        done = amorce("restore", "--from", "s3://acme/boutique/", "--to", base / "out", environment=server.environment)
        assert done.status == 0 and differences(small, base / "out") == [], done


@pytest.mark.parametrize("moment", ["before", "under way"])
def test_keys_are_immutable(small, bucket, moment):
    """Row 48. Another writer is faster by a moment; its object stays as it is. What is known before anything is sent costs nothing: the
    backup takes the name of the next second."""
    taken = []

    def fault(ask):
        if not taken and (ask.method == "HEAD" if moment == "before" else "partNumber" in ask.query):
            taken.append(ask.path.split("/", 2)[2])
            bucket.put(taken[0], b"of another writer")

    with StoreProxy(bucket.moto.port, fault) as proxy:
        done = backup(small, bucket, environment=through(proxy))
    assert bucket.get(taken[0]) == b"of another writer"
    if moment == "before":
        assert done.status == 0 and json.loads(done.output)["key"] > taken[0].split("/", 1)[1], (done, taken)
        return
    assert done.status == 1 and "there already" in done.messages and "run it again" in done.messages, done
    assert_nothing_passes(bucket)


def test_pruned_while_it_is_copied_from(base, bucket):
    site = make_tree(base / "site", files=16, size=1_000_000)
    first = json.loads(backup(site, bucket).output)["key"]
    time.sleep(1.1)

    def fault(ask):
        if ask.headers.get("x-amz-copy-source"):
            bucket.remove(first + ".manifest")
            bucket.remove(first)

    with StoreProxy(bucket.moto.port, fault) as proxy:
        done = backup(site, bucket, environment=through(proxy))
    assert done.status == 0 and "sent anew" in done.messages, done
    assert json.loads(done.output)["copied"] == 0 and bucket.uploads() == []
    assert amorce("verify", bucket.url, environment=bucket.moto.environment).status == 0


# Roles

def test_a_role_that_may_only_put(small, base):
    with Ministack(base) as server:
        server.client().create_bucket(Bucket="acme")
        putter = server.user("putter", "s3:PutObject")
        to = ["--to", "s3://acme/boutique/", "--app", "boutique", "--json"]
        for _ in range(2):
            done = amorce("backup", "--from", small, *to, environment=putter)
            assert done.status == 0 and json.loads(done.output)["copied"] == 0, done
            assert "no earlier backup can be read" in done.messages and "s3:ListBucket" in done.messages, done
            time.sleep(1.1)
        for words in (["backups", "s3://acme/boutique/"], ["verify", "s3://acme/boutique/"],
                      ["restore", "--from", "s3://acme/boutique/", "--to", base / "out"]):
            done = amorce(*words, environment=putter)
            assert done.status == 77 and "s3:ListBucket" in done.messages, (words, done)
        reader = server.user("reader", "s3:ListBucket", "s3:GetObject")
        assert amorce("verify", "s3://acme/boutique/", environment=reader).status == 0
        done = amorce("backup", "--from", small, *to, environment=reader)
        assert done.status == 77 and "s3:PutObject" in done.messages, done
        done = amorce("backups", "s3://acme/boutique/", "--prune", "keep-last=1", environment=reader)
        assert done.status == 77 and "s3:DeleteObject" in done.messages, done
        listed = json.loads(amorce("backups", "s3://acme/boutique/", "--json", environment=reader).output)
        assert [each["state"] for each in listed] == ["complete", "complete"]


def denied(action="s3:Any"):
    return 403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message><RequestId>R1</RequestId></Error>"


def test_a_role_that_may_not_abort(small, bucket):
    """What it put is lost, and the error is the one that mattered."""
    def fault(ask):
        if ask.method not in ("PUT", "POST"):
            return denied()
        if "partNumber=2" in ask.query:
            return 400, b"<Error><Code>InvalidRequest</Code><Message>no</Message></Error>"

    with StoreProxy(bucket.moto.port, fault) as proxy:
        done = backup(small, bucket, environment=through(proxy))
    assert done.status == 1 and "InvalidRequest" in done.messages and "Abort" not in done.messages, done
    assert "failed at backup" in done.messages
    assert_nothing_passes(bucket, isAborted=False)
    assert len(bucket.uploads()) == 1


# Faults of the store

def error(status, code):
    return status, f"<Error><Code>{code}</Code><Message>told</Message><RequestId>R1</RequestId></Error>".encode()


class Every:
    """Each kind of request fails at its first time, and goes through after that."""

    def __init__(self, what):
        self.what, self.seen = what, set()

    def __call__(self, ask):
        kind = (ask.method, ask.path, ask.query.split("uploadId")[0])
        if kind in self.seen:
            return None
        self.seen.add(kind)
        return self.what


@pytest.mark.parametrize("what", [error(503, "SlowDown"), error(500, "InternalError"), "reset", "lose"],
                         ids=["503", "500", "reset", "answers lost"])
def test_everything_fails_once(small, bucket, what):
    fault = Every(what)
    with StoreProxy(bucket.moto.port, fault) as proxy:
        done = backup(small, bucket, environment=through(proxy))
    assert done.status == 0, done
    assert len(fault.seen) >= 6
    assert [key[16:] for key in bucket.keys()] == [".framed.tar.zst", ".framed.tar.zst.manifest"]
    assert amorce("verify", bucket.url, environment=bucket.moto.environment).status == 0
    # Nobody knows the name of an upload whose beginning was answered into the void.
    assert len(bucket.uploads()) == (1 if what == "lose" else 0)


def is_complete(ask):
    return ask.method == "POST" and "uploadId" in ask.query


@pytest.mark.parametrize("where, what, status", [
    ("part", error(500, "InternalError"), 69), ("part", "reset", 69), ("part", denied(), 77), ("part", error(400, "InvalidRequest"), 1),
    ("complete", error(200, "InternalError"), 69), ("complete", error(400, "InvalidPart"), 1), ("manifest", error(503, "SlowDown"), 69),
], ids=["part 500", "part reset", "part denied", "part refused", "complete 200 and an error", "complete refused", "manifest 503"])
def test_something_fails_for_good(small, bucket, where, what, status):
    """Row 46 and 47."""
    def fault(ask):
        isHit = {"part": "partNumber=2" in ask.query, "complete": is_complete(ask),
                 "manifest": ask.method == "PUT" and ask.path.endswith(".manifest")}[where]
        return what if isHit else None

    with StoreProxy(bucket.moto.port, fault) as proxy:
        done = backup(small, bucket, environment=through(proxy))
    assert done.status == status and "failed at backup" in done.messages, done
    assert done.output == ""
    assert_nothing_passes(bucket)
    if where != "manifest":
        assert bucket.keys() == []
        return
    listed = json.loads(amorce("backups", bucket.url, "--json", environment=bucket.moto.environment).output)
    assert [each["state"] for each in listed] == ["incomplete"]


# Runs that end

@pytest.mark.parametrize("where, what", [
    ("part", signal.SIGTERM), ("part", signal.SIGKILL), ("manifest", signal.SIGINT), ("manifest", signal.SIGKILL)])
def test_ended_in_the_middle(small, bucket, where, what):
    reached = threading.Event()

    def fault(ask):
        if "partNumber=2" in ask.query if where == "part" else ask.method == "PUT" and ask.path.endswith(".manifest"):
            reached.set()
            proxy.hold(20)
            return "reset"

    with StoreProxy(bucket.moto.port, fault) as proxy:
        with subprocess.Popen([binary(), "backup", "--from", small, "--to", bucket.url, "--app", "boutique"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={"AWS_EC2_METADATA_DISABLED": "true", **through(proxy)}) as process:
            assert reached.wait(60)
            process.send_signal(what)
            output, messages = process.communicate(timeout=30)
    assert process.returncode == (-9 if what == signal.SIGKILL else 128 + what), messages
    assert_nothing_passes(bucket, isAborted=what != signal.SIGKILL)
    if where == "part":
        assert bucket.keys() == []
    if what == signal.SIGKILL:
        assert_next_is_fine(small, bucket)


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle_on_a_folder(base, small, what):
    store = base / "store"
    store.mkdir()
    with subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_enter=2000000",
             binary(), "backup", "--from", small, "--to", f"{store}/", "--app", "boutique"], stderr=subprocess.PIPE, text=True,
            start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not any(path.name.endswith(".part") for path in store.iterdir()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        subprocess.run(["kill", f"-{what.value}", *children], check=True)
        messages = process.communicate(timeout=60)[1]
    assert process.returncode in (-9, 137, 143), messages
    left = [path.name for path in store.iterdir()]
    assert all(name.startswith(".") and name.endswith(".part") for name in left)
    if what == signal.SIGTERM:
        assert left == []
    done = amorce("backups", store)
    assert done.status == 0 and "no backup below" in done.output
    done = amorce("backup", "--from", small, "--to", store, "--app", "boutique")
    assert done.status == 0, done
    assert amorce("verify", f"{store}/").status == 0


def test_the_disk_of_the_store_is_full(base, small):
    from test_disk import mounted
    with mounted(base / "store", "size=8m") as store:
        done = amorce("backup", "--from", small, "--to", store, "--app", "boutique")
        assert done.status == 73 and "No space left" in done.messages, done
        assert list(store.iterdir()) == []
