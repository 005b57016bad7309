"""A front that is made from framed backups, and from one of several places that have them: which one is taken, what is said about
the others, and what a killed boot leaves to the next one."""

import json
import os
import shutil
import subprocess
import time

import pytest

from backup_trees import backups_in, make_tree
from fault_servers import StoreProxy, WebServer
from scratch_front import Visitor, binary, free_port, tree
from test_disk import mounted, root_only
from test_kill import state

MARK = "MADE-UP-SECRET"


@pytest.fixture
def framed(make_front):
    """A front without an orchestrator, whose bucket has a framed backup of its site."""
    front = make_front(delta=None)
    for path in front.bucket.iterdir():
        path.unlink()
    make_backup(front.base / "site", front.bucket)
    return front


def make_backup(site, folder):
    folder.mkdir(exist_ok=True)
    subprocess.run([binary(), "backup", "-q", "--from", site, "--to", f"{folder}/", "--app", "boutique"], check=True)
    return folder


def places(front, *urls, **more):
    front.write_settings(backup={"from": [{"url": url, **more} for url in urls]})


# Boots

def test_a_boot_from_a_framed_backup(framed):
    """Modes are open to their owner, as those of a delta."""
    os.chmod(framed.base / "site/lib/deep/er/file4.txt", 0o444)
    for path in framed.bucket.iterdir():
        path.unlink()
    make_backup(framed.base / "site", framed.bucket)
    done = framed.boot()
    assert done.status == 0, done
    assert framed.fetch() == (200, "page 1 1\n")
    live = framed.live_tree()
    live.pop("environment.ini")
    expected = tree(framed.base / "site")
    expected["lib/deep/er/file4.txt"] = ("file", 0o644, *expected["lib/deep/er/file4.txt"][2:])
    assert live == expected
    status = framed.status()[1]
    key, = backups_in(framed.bucket)[0]
    assert key in json.dumps(status), status
    assert framed.releases == [framed.live]


def test_a_damaged_one_is_not_made_live(framed):
    key, = backups_in(framed.bucket)[0]
    assert framed.boot().status == 0
    live = framed.live
    place = framed.bucket / key
    whole = place.read_bytes()
    place.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    shutil.rmtree(framed.root / "var/lib/amorce")
    done = framed.boot()
    assert done.status == 65 and "failed at restore" in done.messages and key in done.messages, done
    assert framed.fetch() == (200, "page 1 1\n") and framed.live == live
    assert [path.name for path in (framed.root / "var/lib/amorce").iterdir() if "restoring" in path.name] == []


@root_only
@pytest.mark.parametrize("options", ["size=200k", "nr_inodes=30"])
def test_no_room_for_a_framed_backup(framed, options):
    for path in framed.bucket.iterdir():
        path.unlink()
    make_backup(make_tree(framed.base / "larger", files=30), framed.bucket)
    with mounted(framed.root / "var/www", options) as www:
        # There is no second try in another place: it has the same disk.
        places(framed, f"file://{framed.bucket}/", f"http://127.0.0.1:{free_port()}/x.tar.gz")
        done = framed.boot()
        assert done.status == 73 and "df -h" in done.messages and "trying" not in done.messages, done
        assert framed.live is None and framed.releases == []
        assert [str(path) for path in www.rglob("*") if path.is_file()] == []
        subprocess.run(["mount", "-o", "remount,size=30m,nr_inodes=4000", www], check=True)
        shutil.copy2(framed.base / "site/index.php", framed.base / "larger/index.php")
        shutil.copytree(framed.base / "site/lib", framed.base / "larger/lib", dirs_exist_ok=True)
        time.sleep(1.1)
        make_backup(framed.base / "larger", framed.bucket)
        assert framed.boot().status == 0
        assert framed.fetch() == (200, "page 1 1\n")


@pytest.mark.parametrize("call, number", [("mkdirat", 2), ("write", 30), ("syncfs", 1), ("symlinkat", 1), ("utimensat", 5)])
def test_nothing_goes_live_from_a_disk_that_fails(framed, call, number):
    """Row 63. Without services: strace would stay with those that it sees start."""
    services = framed.settings["services"]
    framed.write_settings(services=[])
    done = framed.run("boot", wrapper=["strace", "-f", "-qq", "-o", framed.base / "calls", "-e", f"trace={call}", "-e",
                                       f"inject={call}:error=EIO:when={number}"])
    assert done.status == 1 and "Input/output error" in done.messages and "failed at " in done.messages, done
    assert framed.live is None and framed.releases == [] and not framed.is_ready
    assert [path.name for path in (framed.root / "var/lib/amorce").iterdir() if "restoring" in path.name] == []
    framed.write_settings(services=services)
    assert framed.boot().status == 0
    assert framed.fetch() == (200, "page 1 1\n")


STEPS = "openat2,mkdirat,symlinkat,syncfs,renameat2,rename,renameat,unlinkat,fsync,fchmod,utimensat"


def test_boots_killed_at_many_calls(framed, make_front):
    """Row 66: nothing is served before all is there, and the next boot ends as an undisturbed one does."""
    other = make_front(delta=None)
    for path in other.bucket.iterdir():
        path.unlink()
    shutil.copytree(framed.bucket, other.bucket, dirs_exist_ok=True)
    assert other.boot().status == 0
    undisturbed = state(other)
    other.stop()
    visitor = Visitor(framed)
    kills = 0
    try:
        for number in [1, 4, 9, 15, 22, 30, 38, 46, 55, 65, 75]:
            done = framed.run("boot", wrapper=["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={STEPS}", "-e",
                                               f"inject={STEPS}:signal=KILL:when={number}"])
            kills += done.status != 0
            if done.status == 0:
                break
            if number % 2:
                # Every other one is killed on top of what the last one left.
                continue
            done = framed.boot()
            assert done.status == 0, (number, done, framed.logs())
            assert state(framed) == undisturbed, number
            visitor.stop()
            assert visitor.wrong == []
            framed.stop()
            shutil.rmtree(framed.root / "var/www")
            shutil.rmtree(framed.root / "var/lib/amorce")
            (framed.root / "run/amorce/ready").unlink(missing_ok=True)
            visitor = Visitor(framed)
        assert framed.boot().status == 0
        assert state(framed) == undisturbed
        assert kills >= 5
        visitor.stop()
        assert visitor.wrong == []
    finally:
        visitor.stop()


def test_a_killed_boot_is_gone_on_with(framed):
    site = framed.base / "site"
    make_tree(site / "more", files=60, size=500_000)
    for path in framed.bucket.iterdir():
        path.unlink()
    make_backup(site, framed.bucket)
    key, = backups_in(framed.bucket)[0]
    size = (framed.bucket / key).stat().st_size
    with WebServer(framed.bucket, stallAt=20_000_000) as web:
        framed.write_settings(backup={"from": f"{web.url}/{key}", "memory": "4MiB"})
        process = framed.start("boot")
        deadline = time.monotonic() + 60
        while web.sent < 18_000_000:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)
        process.kill()
        process.communicate()
        assert framed.live is None and framed.fetch() is None
        web.stallAt, web.sent = None, 0
        done = framed.boot()
        assert done.status == 0, done
        assert web.sent < size - 10_000_000, (web.sent, size)
    live = framed.live_tree()
    live.pop("environment.ini")
    expected = tree(site)
    expected["more/read-only"] = ("file", 0o644, *expected["more/read-only"][2:])
    assert live == expected
    assert framed.releases == [framed.live]


# Places

def broken(front, what, stack):
    """The URL of a place that has no usable backup, what is said about it, and the exit code that it means alone."""
    if what == "unreachable":
        return f"http://127.0.0.1:{free_port()}/x.tar.zst", "refused the connection", 69
    if what == "empty":
        (front.base / "nothing").mkdir()
        return f"file://{front.base}/nothing/", "there is no backup below", 1
    if what == "absent":
        return f"file://{front.base}/not-there/", "no such file", 1
    if what == "damaged":
        place = make_backup(front.base / "site", front.base / "damaged")
        key, = backups_in(place)[0]
        data = (place / key).read_bytes()
        (place / key).write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
        return f"file://{place}/", "is bad", 65
    if what == "plain and damaged":
        place = front.base / "plain"
        place.mkdir()
        (place / "20261124T030000Z.tar.gz").write_bytes(b"<html>log in</html>")
        return f"file://{place}/", "is bad", 65
    if what == "without a manifest":
        place = make_backup(front.base / "site", front.base / "unfinished")
        key, = backups_in(place)[0]
        (place / (key + ".manifest")).unlink()
        return f"file://{place}/", "no .manifest beside it", 1
    if what == "denied":
        web = stack(StoreProxy(1, lambda ask: (
            403, b"<Error><Code>AccessDenied</Code><Message>no</Message><RequestId>R1</RequestId></Error>")))
        return "s3://acme/boutique/", "s3:ListBucket", 77
    if what == "denied over HTTP":
        return f"{stack(WebServer(front.bucket, status=403)).url}/x.tar.zst", "403", 77
    raise AssertionError(what)


@pytest.fixture
def stack():
    servers = []

    def enter(server):
        servers.append(server.__enter__())
        return server

    enter.servers = servers
    yield enter
    for server in servers:
        server.__exit__(None, None, None)


KEYS = {"AWS_ACCESS_KEY_ID": "AKTESTMADEUP", "AWS_SECRET_ACCESS_KEY": MARK + "/of+the+bucket", "AWS_REGION": "eu-west-1"}


def environment(stack):
    return {**KEYS, **({"AWS_ENDPOINT_URL_S3": stack.servers[-1].url} if stack.servers else {})}


@pytest.mark.parametrize("what", [
    "unreachable", "empty", "absent", "damaged", "plain and damaged", "without a manifest", "denied", "denied over HTTP"])
def test_the_second_place_serves_when_the_first_has_nothing(framed, stack, what):
    url, said, status = broken(framed, what, stack)
    good = f"file://{framed.bucket}/"
    keys = environment(stack)
    places(framed, url, good)
    done = framed.boot(environment=keys)
    assert done.status == 0, done
    assert said in done.messages and f"no backup from {url}" in done.messages and f"trying {good}" in done.messages, done
    assert framed.fetch() == (200, "page 1 1\n")
    code, told = framed.status()
    assert code == 0 and str(framed.bucket) in json.dumps(told) and "trying" in json.dumps(told), told
    record, = (framed.root / "var/lib/amorce/releases").glob("*/record.json")
    backup = json.loads(record.read_text())["backup"]
    assert (backup["location"].rstrip("/"), backup["key"]) == (good.rstrip("/"), backups_in(framed.bucket)[0][0]), backup
    live = framed.live_tree()
    live.pop("environment.ini")
    assert live == tree(framed.base / "site")
    # Alone, it is an error of its own, with its own code.
    shutil.rmtree(framed.site)
    shutil.rmtree(framed.root / "var/lib/amorce")
    for each in ([{"url": url}], url)[what == "unreachable":]:
        framed.write_settings(backup={"from": each})
        done = framed.boot(environment=keys)
        assert done.status == status and said in done.messages, done
    assert MARK not in done.messages + framed.everything_said()


def test_the_disk_of_the_first_place_is_broken(framed):
    """A host's own trouble ends a restore, but that of a disk with backups is the place's."""
    # Without services, and so without a proof: strace would stay with those that it sees start.
    framed.write_settings(services=[])
    place = make_backup(framed.base / "site", framed.base / "first")
    key, = backups_in(place)[0]
    places(framed, f"file://{place}/", f"file://{framed.bucket}/")
    done = framed.run("boot", wrapper=["strace", "-f", "-qq", "-o", "/dev/null", "-P", place / key, "-e", "trace=pread64",
                                       "-e", "inject=pread64:error=EIO"])
    assert "failed at prove" in done.messages and "Input/output error" in done.messages, done
    assert f"trying file://{framed.bucket}/" in done.messages, done


def test_no_place_has_one(framed, stack):
    urls = [broken(framed, what, stack) for what in ("denied", "damaged", "empty")]
    places(framed, *[url for url, _, _ in urls])
    done = framed.boot(environment=environment(stack))
    assert done.status == 77, done
    report = done.messages[done.messages.index("failed at restore"):]
    for url, said, _ in urls:
        assert report.count(url) >= 1 and said in report, (url, done)
    assert framed.live is None and framed.releases == []
    # In another order, another code: the first place's.
    places(framed, *[url for url, _, _ in urls[1:]])
    assert framed.boot(environment=environment(stack)).status == 65
    assert MARK not in done.messages + framed.everything_said()


def test_the_first_place_is_enough(framed, stack):
    """The second is not even asked."""
    web = stack(WebServer(framed.bucket))
    places(framed, f"file://{framed.bucket}/", f"{web.url}/x.tar.zst")
    assert framed.boot().status == 0
    assert web.requests == []


def test_plan_and_settings_with_places(framed):
    good = f"file://{framed.bucket}/"
    (framed.base / "nothing").mkdir()
    places(framed, f"file://{framed.base}/nothing/", good)
    done = framed.run("plan")
    assert done.status == 0, done
    assert backups_in(framed.bucket)[0][0] in done.output + done.messages, done
    assert framed.live is None
    done = framed.run("settings")
    assert done.status == 0 and good in done.output and f"file://{framed.base}/nothing/" in done.output, done


@pytest.mark.parametrize("value, said", [
    ([], "backup.from"), ([{"region": "eu-west-1"}], "url"), ([{"url": "file:///x/", "nonsense": 1}], "nonsense"),
    ([{"url": "ftp://x/"}], "ftp"), ([{"url": ""}], "from"), ([5], "from"), ([[]], "from"), ("", "from"),
    ([{"url": "file:///x/"}, {"url": "s3://x/y.tar.zst"}], "x"), ([{"url": "file:///x/", "connections": 0}], "connections"),
], ids=str)
def test_wrong_settings(framed, value, said):
    framed.write_settings(backup={"from": value})
    done = framed.boot()
    assert done.status == 78 and said in done.messages and "settings" in done.messages, done
    assert framed.live is None


# Whose backup it is

def test_a_front_takes_backups_of_its_own_application(framed):
    """The newest of a prefix may be another one's."""
    other = framed.base / "other"
    other.mkdir()
    (other / "index.php").write_text("another application\n")
    for words in (["--app", "another"], ["--app", "boutique", "--environment", "test"]):
        subprocess.run([binary(), "backup", "-q", "--from", other, "--to", f"{framed.bucket}/", *words], check=True)
    framed.write_settings(backup={"from": f"file://{framed.bucket}/", "environment": "production"})
    done = framed.boot()
    assert done.status == 0, done
    assert framed.fetch() == (200, "page 1 1\n")


def test_backups_of_others_alone_are_none(make_front):
    front = make_front(delta=None)
    for path in front.bucket.iterdir():
        path.unlink()
    subprocess.run([binary(), "backup", "-q", "--from", front.base / "site", "--to", f"{front.bucket}/", "--app", "another"], check=True)
    done = front.boot()
    assert done.status == 78 and "of another in production" in done.messages and "`app`" in done.messages, done
    assert front.live is None


def test_a_copy_that_lags_behind_brings_nothing_older(framed):
    """The first place is away for a moment; what the second one has is older than what is served."""
    behind = make_backup(framed.base / "site", framed.base / "behind")
    time.sleep(1.1)
    (framed.base / "site/new.txt").write_text("newer\n")
    make_backup(framed.base / "site", framed.bucket)
    places(framed, f"file://{framed.bucket}/", f"file://{behind}/")
    assert framed.boot().status == 0
    live = framed.live
    for path in framed.bucket.iterdir():
        path.unlink()
    done = framed.boot()
    assert done.status == 0 and framed.live == live, done
    assert "a newer backup than there is" in json.dumps(framed.status()[1]), done
