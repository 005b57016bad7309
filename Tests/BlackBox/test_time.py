"""`--deadline` in every step: the run ends soon after it, with 124, and what was served before is served still. The bounds
are the deadline and a grace for a busy machine; no time is asserted beyond that a run ends at all."""

import os
import socket
import subprocess
import time

import pytest

from fault_servers import StallingProxy, WebServer
from scratch_front import Run, free_port
from test_restore import assert_nothing_left, restore

DEADLINE = "3s"
GRACE = 25


def ended(front, command, *words, environment=None):
    """How a run with a deadline ended; kills it, and fails, where it does not end."""
    process = front.start(command, "--deadline", DEADLINE, *words, environment=environment)
    try:
        output, messages = process.communicate(timeout=3 + GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError(f"{command} does not end at its deadline")
    return Run(process, output, messages)


def assert_ended(front, done, step):
    assert done.status == 124, done
    assert f"failed at {step}" in done.messages, done
    live = front.live
    assert live and f"release {live} serves as before" in done.messages, done
    assert front.fetch() == (200, "page 1 1\n")
    assert front.fetch("/amorce/health")[0] == 200
    code, status = front.status()
    assert code == 1 and status["isReady"] and status["report"]["failure"]["exitCode"] == 124


def hanging_listener():
    """A port where connections are made and never answered."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def test_a_store_that_stalls(make_front):
    front = make_front()
    with WebServer(front.bucket, stallAt=300) as web:
        archive = next(path.name for path in front.bucket.iterdir() if path.name.endswith(".tar.zst"))
        (front.bucket / (archive + ".sha256")).unlink()
        done = restore(f"{web.url}/{archive}", front.base / "out", "--deadline", DEADLINE, timeout=3 + GRACE)
        assert done.status == 124, done
        assert_nothing_left(front.base / "out")
        front.write_settings(backup={"from": f"{web.url}/{archive}"})
        done = ended(front, "boot")
        assert done.status == 124 and "failed at restore" in done.messages and "nothing is served" in done.messages, done
        assert front.live is None and not front.is_ready


def test_a_store_that_does_not_answer(make_front):
    front = make_front()
    with hanging_listener() as listener:
        front.write_settings(backup={"from": f"http://127.0.0.1:{listener.getsockname()[1]}/x.tar.gz"})
        done = ended(front, "boot")
        assert done.status == 124 and "failed at restore" in done.messages, done
        assert front.live is None and not front.is_ready


def test_metadata_that_does_not_answer(front):
    assert front.boot().status == 0
    with hanging_listener() as listener:
        front.write_settings(metadata=["ec2"])
        done = ended(front, "sync", environment={
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}"})
    assert_ended(front, done, "identify")


@pytest.fixture
def rsync_daemon(front):
    """The orchestrator's folder as the module `site` of a real rsync daemon."""
    port = free_port()
    config = front.base / "rsyncd.conf"
    config.write_text(f"pid file = {front.base}/rsyncd.pid\nuse chroot = no\n[site]\npath = {front.orchestrator}\nread only = yes\n"
                      + ("uid = root\ngid = root\n" if os.getuid() == 0 else ""))
    process = subprocess.Popen(["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={config}"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield port
    process.kill()
    process.wait()


@pytest.mark.parametrize("limit", [0, 40, 1500, 200_000])
def test_an_orchestrator_that_stalls(front, rsync_daemon, limit):
    """Before its greeting, in the list of modules, in the list of files, and in the midst of a large file."""
    assert front.boot().status == 0
    front.publish("2")
    (front.orchestrator / "large").write_bytes(os.urandom(3 << 20))
    with StallingProxy(rsync_daemon, limit) as proxy:
        front.write_settings(delta={"from": f"rsync://127.0.0.1:{proxy.port}/site/"})
        done = ended(front, "sync")
        assert proxy.connections >= 1
    assert_ended(front, done, "sync")
    found = subprocess.run(["pgrep", "-f", f"127.0.0.1:{proxy.port}/site"], capture_output=True, text=True).stdout
    assert found == "", found
    front.write_settings(delta={"from": f"rsync://127.0.0.1:{rsync_daemon}/site/"})
    done = front.sync()
    assert done.status == 0, done
    assert front.fetch() == (200, "page 2 2\n")


@pytest.mark.parametrize("kind", ["check", "reload"])
def test_a_service_that_hangs(front, kind):
    assert front.boot().status == 0
    front.publish("2")
    flag = front.base / "hung"
    # Hangs once, with a child of its own: taken back, it does what it should.
    once = ["sh", "-c", f"test -e {flag} || {{ touch {flag}; sleep 98767; }}"]
    service = {"name": "slow", "reload": ["true"], "check": ["true"], kind: once}
    front.write_settings(services=front.services() + [service])
    done = ended(front, "sync")
    assert_ended(front, done, "check" if kind == "check" else "switch")
    assert subprocess.run(["pgrep", "-f", "sleep 98767"], capture_output=True).stdout == b""
    done = front.sync()
    assert done.status == 0 and front.fetch() == (200, "page 2 2\n"), done


def test_a_page_that_hangs(front):
    """The new release answers no page in time; the release before it does."""
    assert front.boot().status == 0
    front.publish("2")
    (front.orchestrator / "lib/part.php").write_text("<?php $b = '2'; sleep(20);\n")
    front.write_settings(probe={"timeout": "15s"})
    done = ended(front, "sync")
    assert done.status == 124, done
    live = front.live
    assert f"release {live} serves as before" in done.messages and front.fetch() == (200, "page 1 1\n"), done
    assert front.fetch("/amorce/health")[0] == 200


def test_a_deadline_of_the_settings(front):
    assert front.boot().status == 0
    front.publish("2")
    front.write_settings(deadline="3s", services=front.services() + [{"name": "slow", "reload": ["true"], "check": ["sleep", "98768"]}])
    done = front.sync(timeout=3 + GRACE)
    assert_ended(front, done, "check")
