"""A front from its first boot on: what goes live, what is refused, and what is served after either."""

import json
import os
import re
import shutil
import subprocess
import time

import pytest

from scratch_front import Run, Visitor, tree

MARK = "MADE-UP-SECRET"
TAIL = "MADE-UP-TAIL"


def rendered_config(front):
    """Every file of the host that amorce renders, with its bytes and mode."""
    places = ["etc/apache2/sites-available", "etc/apache2/sites-enabled", "etc/php"]
    result = {}
    for place in places:
        for path in sorted((front.root / place).rglob("*")):
            if path.is_symlink():
                result[str(path)] = os.readlink(path)
            elif path.is_file():
                result[str(path)] = (path.read_bytes(), path.stat().st_mode)
    return result


def booted(front):
    done = front.boot()
    assert done.status == 0, done
    return front


def assert_unchanged(front, before, done, status):
    """The front serves what it served, with the configuration it had, is as ready as it was, and the run said otherwise."""
    live, config = before
    assert done.status == status, done
    assert front.live == live
    assert rendered_config(front) == config
    assert front.fetch()[1] == "page 1 1\n"
    assert front.fetch("/amorce/health")[0] == 200
    assert f"release {live} serves as before" in done.messages
    code, report = front.status()
    assert code == 1 and report["isReady"] and report["report"]["failure"]["exitCode"] == status
    assert not (front.root / "var/lib/amorce/switch.json").exists()


def test_first_boot_serves_and_says_so(front):
    assert front.status()[0] == 3
    done = front.boot()
    assert done.status == 0, done
    assert front.fetch() == (200, "page 1 1\n")
    assert front.fetch("/amorce/health")[0] == 200
    release = json.loads(front.fetch("/amorce/release")[1])
    assert release["release"] == front.live
    code, status = front.status()
    assert code == 0 and status["isReady"] and status["report"]["outcome"] == "ready"
    assert [step["name"] for step in status["report"]["steps"] if step["state"] == "done"] == [
        "identify", "settle", "restore", "sync", "render", "check", "switch", "prove", "announce"]
    ready = json.loads((front.root / "run/amorce/ready").read_text())
    assert ready["release"] == front.live and ready["app"] == "boutique"
    log = (front.root / "var/log/amorce.log").read_text()
    assert "ready: release" in log
    # What was restored is what was backed up, with the rendered file on top.
    live = front.live_tree()
    live.pop("environment.ini")
    assert live == tree(front.base / "site")


def test_a_second_boot_changes_nothing(front):
    booted(front)
    live, config = front.live, rendered_config(front)
    done = front.boot()
    assert done.status == 0, done
    assert front.live == live and front.releases == [live] and rendered_config(front) == config
    assert "nothing has changed" in done.messages


def test_sync_brings_the_delta_and_rollback_takes_it_back(front):
    booted(front)
    first = front.live
    front.publish("2")
    plan = front.run("plan", "--json")
    assert plan.status == 0, plan
    assert json.loads(plan.output)["delta"]["deleted"] == 1
    assert front.live == first and front.releases == [first]

    done = front.sync()
    assert done.status == 0, done
    second = front.live
    assert second != first and front.fetch() == (200, "page 2 2\n")
    live = front.live_tree()
    live.pop("environment.ini")
    expected = tree(front.orchestrator)
    expected.pop(".amorce-site")
    assert live == expected
    # The release before it is whole, although both share what did not change.
    old = tree(front.site / "releases" / first)
    old.pop("environment.ini")
    assert old == tree(front.base / "site")

    done = front.run("rollback")
    assert done.status == 0 and front.live == first and front.fetch() == (200, "page 1 1\n"), done
    done = front.run("rollback", second)
    assert done.status == 0 and front.fetch() == (200, "page 2 2\n"), done
    assert front.run("rollback", "20010101000000").status == 64


def test_only_so_many_releases_are_kept(make_front):
    front = booted(make_front(keep=2))
    for version in "2345":
        front.publish(version)
        assert front.sync().status == 0
    assert len(front.releases) == 2 and front.fetch() == (200, "page 5 5\n")


def test_a_front_without_its_orchestrator_serves_the_backup(make_front):
    front = make_front(delta={"from": "rsync://127.0.0.1:9/boutique/"})
    done = front.boot()
    assert done.status == 0, done
    assert front.fetch() == (200, "page 1 1\n")
    code, status = front.status()
    assert code == 2 and "orchestrator cannot be reached" in status["report"]["degraded"]
    assert "degraded" in done.messages


def test_policy_may_want_the_orchestrator(make_front):
    front = make_front(delta={"from": "rsync://127.0.0.1:9/boutique/", "when-unreachable": "fail"})
    done = front.boot()
    assert done.status == 69, done
    assert not front.is_ready and front.live is None and front.fetch() is None
    assert "nothing is served" in done.messages


def test_an_empty_source_empties_nothing(front):
    booted(front)
    before = front.live, rendered_config(front)
    for name in os.listdir(front.orchestrator):
        path = front.orchestrator / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    done = front.sync()
    assert_unchanged(front, before, done, done.status)
    assert done.status != 0
    # With its marker, and still empty: the limit refuses.
    front.mark()
    done = front.sync()
    assert_unchanged(front, before, done, done.status)
    assert done.status != 0


@pytest.mark.parametrize("name, text, status, said", [
    ("etc/apache2/sites-available/000-amorce.conf", "DocumentRoot {{nowhere.to.be.found}}\n{{db.hots}}\n", 65, "did you mean"),
    ("etc/apache2/sites-available/000-amorce.conf", "Listn 80\n", 65, "Listn"),
    ("etc/php/8.2/fpm/pool.d/amorce.conf", "[amorce]\nlisten = {{php.socket}}\npm = no-such-thing\n", 65, "pm"),
    ("release/broken.php", "<?php if (;\n", 65, "broken.php"),
    ("release/index.php", "<?php http_response_code(500); echo 'no database connection';\n", 1, "no database connection"),
    ("release/secret.ini", "x = {{{db.password}}}\n", 65, "secret.ini"),
])
def test_what_is_broken_never_goes_live(front, name, text, status, said):
    booted(front)
    before = front.live, rendered_config(front)
    front.publish("2")
    front.template(name, text)
    done = front.sync()
    assert said in done.messages, done
    assert_unchanged(front, before, done, status)


def test_a_virtual_host_that_serves_something_else_is_taken_back(front):
    """The configuration is valid and loads, but it is not this release that it serves."""
    booted(front)
    before = front.live, rendered_config(front)
    front.publish("2")
    other = front.base / "other"
    other.mkdir()
    (other / "index.html").write_text("page 1 1\n")
    os.chmod(other, 0o755)
    front.template("etc/apache2/sites-available/000-amorce.conf", f"""\
<VirtualHost *:{front.port}>
    ServerName boutique.test
    DocumentRoot "{other}"
    <Directory "{other}">
        Require all granted
    </Directory>
</VirtualHost>
""")
    done = front.sync()
    assert "/amorce/release answered 404" in done.messages and "no rehearsal was possible" in done.messages
    assert_unchanged(front, before, done, 1)


def test_no_visitor_is_the_first_to_see_what_does_not_work(front):
    """A page that needs something that is not there, such as a database: found in a rehearsal, seen by nobody."""
    booted(front)
    before = front.live, rendered_config(front)
    visitor = Visitor(front)
    front.publish("2")
    front.template("release/index.php", "<?php http_response_code(500); echo 'no database connection';\n")
    done = front.sync()
    visitor.stop()
    assert "in a rehearsal before the switch" in done.messages and "no database connection" in done.messages, done
    assert_unchanged(front, before, done, 1)
    assert visitor.wrong == [] and visitor.answers > 0


def test_all_problems_of_all_templates_come_at_once(front):
    front.template("release/a.ini", "a = {{unknown.one}}\nb = {{unknown.two}}\n")
    front.template("release/b.php", "<?php $c = {{unknown.three}};\n")
    done = front.boot()
    assert done.status == 65
    for place in ["a.ini.mustache:1", "a.ini.mustache:2", "b.php.mustache:1"]:
        assert place in done.messages, done


def test_the_guard_refuses_what_only_production_may_use(make_front):
    front = make_front(guard={"never-mention": ["db.test"]})
    done = front.boot()
    assert done.status == 65 and "guard.never-mention" in done.messages and front.live is None, done


def test_shared_paths_survive_releases(make_front):
    front = make_front(shared=["assets/uploads", "lib/deep"])
    (front.base / "site/assets/uploads").mkdir()
    (front.base / "site/assets/uploads/first.txt").write_text("from the backup\n")
    front.backup("20261124T040000Z")
    booted(front)
    uploads = front.site / "shared/assets/uploads"
    assert (uploads / "first.txt").read_text() == "from the backup\n"
    (uploads / "mine.txt").write_text("by a visitor\n")
    front.publish("2")
    assert front.sync().status == 0
    assert front.fetch("/assets/uploads/mine.txt") == (200, "by a visitor\n")
    assert front.fetch("/assets/uploads/first.txt")[0] == 200
    assert front.fetch("/lib/deep/er/file1.txt")[0] == 200


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_shared_files_have_their_owner_or_are_not_there(make_front):
    """A kill while they are given away: the next run ends as an undisturbed one would."""
    import pwd

    wanted = pwd.getpwnam("www-data").pw_uid
    for number in range(1, 6):
        front = make_front(**{"shared": ["assets"], "shared-owner": "www-data:www-data"})
        (front.base / "site/assets").joinpath(os.fsdecode(b"caf\xe9.css")).write_text("odd name\n")
        front.backup("20261124T050000Z")
        front.write_settings(delta=None)
        front.run("boot", wrapper=["strace", "-qq", "-o", "/dev/null", "-e", "trace=fchownat",
                                   "-e", f"inject=fchownat:signal=KILL:when={number}"])
        booted(front)
        kept = [front.site / "shared/assets", *(front.site / "shared/assets").rglob("*")]
        assert len(kept) == 4 and {path.lstat().st_uid for path in kept} == {wanted}
        front.stop()


def test_settings_come_through_user_data(front):
    seed = front.root / "var/lib/cloud/seed/nocloud"
    seed.mkdir(parents=True)
    (seed / "meta-data").write_text("instance-id: i-scratch\n")
    (seed / "user-data").write_text("#amorce\nenvironment: rehearsal\nmetadata: [ nocloud ]\n")
    front.write_settings(metadata=["nocloud"])
    assert front.boot().status == 0
    text = front.fetch("/environment.ini")
    ready = json.loads((front.root / "run/amorce/ready").read_text())
    assert ready["environment"] == "rehearsal", text
    assert front.status()[1]["report"]["instance"] == "i-scratch"


def test_what_an_image_brought_along_is_not_this_front(front):
    record = front.base / "record.json"
    record.write_text(json.dumps({"platform": "recorded", "instance-id": "i-0123456789abcdef0"}))
    assert front.boot("--metadata", str(record)).status == 0
    first = front.live
    record.write_text(json.dumps({"platform": "recorded", "instance-id": "i-0fedcba9876543210"}))
    done = front.boot("--metadata", str(record))
    assert done.status == 0 and "came with the image" in done.messages, done
    assert front.live != first


def test_two_runs_at_once_do_no_harm(front):
    booted(front)
    front.write_settings(services=front.services() + [{"name": "slow", "reload": ["true"], "check": ["sleep", "3"]}])
    front.publish("2")
    first = front.start("sync")
    time.sleep(1)
    assert front.status()[0] == 4
    second = front.sync()
    assert second.status == 75 and "another run holds the lock" in second.messages, second
    assert front.run("status", "--wait").status == 0
    assert first.wait(60) == 0
    assert front.fetch() == (200, "page 2 2\n")


@pytest.mark.parametrize("how, status", [("deadline", 124), ("term", 143), ("int", 130)])
def test_a_run_that_must_end_before_the_switch_leaves_what_was(front, how, status):
    booted(front)
    before = front.live, rendered_config(front)
    front.publish("2")
    front.write_settings(services=front.services() + [{"name": "slow", "reload": ["true"], "check": ["sleep", "98765"]}])
    process = front.start("sync", *(["--deadline", "2s"] if how == "deadline" else []))
    if how != "deadline":
        time.sleep(2)
        os.kill(process.pid, 15 if how == "term" else 2)
    output, messages = process.communicate(timeout=60)
    assert_unchanged(front, before, Run(process, output, messages), status)
    assert subprocess.run(["pgrep", "-f", "sleep 98765"], capture_output=True).stdout == b""
    assert front.releases == [before[0]]


def test_a_run_that_must_end_during_the_switch_takes_it_back(front):
    booted(front)
    before = front.live, rendered_config(front)
    front.publish("2")
    # Loads the new configuration and then hangs, the first time; taken back it does what it should.
    services = front.services()
    flag = front.base / "hung"
    services[1]["reload"] = ["sh", "-c", f"\"$@\"; test -e {flag} || {{ touch {flag}; sleep 98766; }}", "sh"] + services[1]["start"][:-1] + ["graceful"]
    front.write_settings(services=services)
    process = front.start("sync")
    while not flag.exists():
        time.sleep(0.05)
    os.kill(process.pid, 15)
    output, messages = process.communicate(timeout=60)
    assert_unchanged(front, before, Run(process, output, messages), 143)
    assert subprocess.run(["pgrep", "-f", "sleep 98766"], capture_output=True).stdout == b""


def test_what_cannot_be_taken_back_is_said_and_ended_by_the_next_run(front):
    booted(front)
    before = front.live, rendered_config(front)
    front.publish("2")
    services = front.services()
    services[1]["reload"] = services[1]["start"] = ["false"]
    front.write_settings(services=services)
    done = front.sync()
    assert done.status == 1 and "uncertain" in done.messages, done
    assert rendered_config(front) == before[1] and front.live == before[0]
    assert front.fetch() == (200, "page 1 1\n")
    front.write_settings(services=front.services())
    done = front.sync()
    assert done.status == 0 and "was cut off" in done.messages, done
    assert front.fetch() == (200, "page 2 2\n")


def test_no_secret_is_ever_said(front):
    outputs = []
    for words in (["boot", "-v"], ["plan"], ["render", "--diff"], ["settings"], ["settings", "--json"], ["status", "--json"]):
        done = front.run(*words)
        outputs.append(done.output + done.messages)
    front.publish("2")
    front.write_settings(values={"db": {"password": MARK + " another"}})
    for words in (["plan"], ["plan", "--json"], ["render", "--diff"], ["sync", "-v", "--json"], ["rollback", "-v"]):
        done = front.run(*words)
        assert done.status == 0, done
        outputs.append(done.output + done.messages)
    # One that goes wrong after the switch, one before.
    front.template("release/index.php", "<?php http_response_code(500);\n")
    outputs.append(repr(front.sync("-v")))
    front.template("release/x.ini", "a = {{db.password}}{{nothing}}\n")
    outputs.append(repr(front.sync("-v")))
    for mark in (MARK, TAIL):
        assert mark not in "\n".join(outputs)
        assert mark not in front.everything_said()
    # The diff of a changed secret says that it changes, and shows neither.
    assert "a secret in it changes" in outputs[6]


def test_json_lines_are_json(front):
    done = front.boot("--log-format", "json", "--json")
    lines = [json.loads(line) for line in done.messages.splitlines()]
    assert lines[-1]["event"] == "ended" and lines[-1]["exitCode"] == 0
    assert json.loads(done.output)["outcome"] == "ready"
    assert all("time" in line and "level" in line for line in lines)


@pytest.mark.parametrize("script", [
    'exec "$@" <&- >&- 2>&-',
    'umask 077; exec "$@"',
    'umask 000; exec "$@"',
    'unset HOME TERM LANG; exec "$@"',
    'mkdir gone && cd gone && rmdir ../gone; exec "$@"',
    'ulimit -n 64; exec "$@"',
    'exec env -i "$@"',
])
def test_a_poor_environment_is_enough(front, script, monkeypatch):
    monkeypatch.chdir(front.base)
    done = front.boot(wrapper=["sh", "-c", script, "sh"])
    assert done.status == 0, done
    assert front.fetch() == (200, "page 1 1\n")
    live = front.live_tree()
    live.pop("environment.ini")
    assert live == tree(front.base / "site")
    assert (front.root / "var/lib/amorce").stat().st_mode & 0o777 == 0o700
    assert (front.site / "releases" / front.live).stat().st_mode & 0o777 == 0o755


def test_a_stale_health_file_is_removed_first(front):
    (front.root / "run/amorce").mkdir()
    stale = front.root / "run/amorce/ready"
    stale.write_text(json.dumps({"app": "boutique", "environment": "preprod", "release": "x", "since": 0,
                                 "bootIdentifier": "of-another-boot"}))
    front.template("release/a.ini", "{{unknown}}")
    assert front.boot().status == 65
    assert not stale.exists()


def test_old_backups_are_refused_and_the_newest_complete_one_is_taken(front):
    # Newer ones that are not complete: without its checksum, empty, of an unknown kind.
    front.backup("20261124T100000Z", checksum=False)
    (front.bucket / "20261124T110000Z.tar.zst").write_bytes(b"")
    (front.bucket / "20261124T120000Z.tar.zst.part").write_bytes(b"x")
    done = front.boot()
    assert done.status == 0 and "20261124T030000Z" in done.messages, done
    front.write_settings(backup={"newest-within": "1h"})
    done = front.run("restore", "--from", f"file://{front.bucket}/", "--to", str(front.base / "out"))
    assert done.status == 0
    shutil.rmtree(front.site / "releases")
    assert front.boot().status == 1


def test_usage_errors_are_64_and_settings_78(front):
    assert front.run("boot", "--no-such-flag").status == 64
    assert front.run("boot", "--deadline", "soon").status == 64
    (front.root / "etc/amorce/amorce.yaml").write_text("app: x\nunknwon: 1\n")
    done = front.boot()
    assert done.status == 78
    assert re.search(r"amorce\.yaml:2: unknown key `unknwon`", done.messages), done
    assert "`environment` is missing" in done.messages


def test_version_names_its_libraries(front):
    done = subprocess.run([__import__("scratch_front").binary(), "--version"], capture_output=True, text=True)
    for word in ["amorce ", "commit", "linux-gnu", "libcurl", "libarchive", "zlib", "OpenSSL"]:
        assert word in done.stdout


def test_a_page_that_shows_a_secret_is_quoted_without_it(front):
    """PHP's stack traces show arguments; the report of the failure quotes the page."""
    booted(front)
    front.template("release/index.php", "<?php http_response_code(500); echo 'mysqli_connect(', htmlspecialchars({{db.password}}), ')';\n")
    done = front.sync()
    assert done.status == 1 and "mysqli_connect" in done.messages and "(secret)" in done.messages, done
    for mark in (MARK, TAIL):
        assert mark not in repr(done) and mark not in front.everything_said()


def test_a_program_that_quotes_a_secret_is_quoted_without_it(front):
    booted(front)
    front.template("release/broken.php", "<?php define('DB_PASSWORD' {{db.password}});\n")
    done = front.sync("-v")
    assert done.status == 65 and "broken.php" in done.messages and "(secret)" in done.messages, done
    for mark in (MARK, TAIL, "# x"):
        assert mark not in repr(done) and mark not in front.everything_said()


def test_a_file_changed_by_hand_is_not_shown(front):
    booted(front)
    live = front.site / "releases" / front.live / "environment.ini"
    live.write_text(live.read_text() + "; by hand\n")
    front.template("release/environment.ini", "[site]\nenvironment = {{environment}}\ninstance = x\n[database]\nhost = y\n")
    for words in (["plan"], ["render", "--diff"]):
        done = front.run(*words)
        assert done.status == 0 and "environment.ini" in done.output and "is not shown" in done.output, done
        for mark in (MARK, TAIL):
            assert mark not in repr(done)


def test_a_live_release_that_stops_working_is_not_ready(make_front):
    """The database is down, and nothing is new: the front says that it is not ready, and why."""
    front = make_front(delta=None)
    front.template("release/index.php", f"<?php if (file_exists('{front.base}/down')) http_response_code(500); echo \"page 1 1\\n\";\n")
    booted(front)
    (front.base / "down").touch()
    done = front.boot()
    assert done.status == 1 and "does not answer as it should" in done.messages, done
    assert front.fetch("/amorce/health")[0] == 503 and front.status()[0] == 1
    (front.base / "down").unlink()
    assert front.boot().status == 0 and front.fetch("/amorce/health")[0] == 200


def test_a_reload_that_failed_once_is_made_up_for(front):
    """What was taken back could not be loaded again, and then nothing is new: the services must still come to load it."""
    booted(front)
    first = front.live
    front.publish("2")
    services = front.services()
    services[1]["reload"] = services[1]["start"] = ["false"]
    front.write_settings(services=services)
    assert front.sync().status == 1
    (front.orchestrator / "index.php").write_bytes((front.base / "site/index.php").read_bytes())
    shutil.rmtree(front.orchestrator)
    shutil.copytree(front.base / "site", front.orchestrator, symlinks=True)
    front.mark()
    front.write_settings(services=front.services())
    done = front.boot()
    assert done.status == 0 and front.live == first, done
    assert front.fetch() == (200, "page 1 1\n") and front.fetch("/amorce/health")[0] == 200


def test_a_front_serves_one_application(front):
    booted(front)
    live = front.live
    done = front.boot("--set", "app=boutiqe")
    assert done.status == 78 and "serves one application" in done.messages, done
    assert front.boot().status == 0 and front.live == live


def test_without_a_probe_nothing_is_called_ready(make_front):
    front = make_front(probe=None)
    done = front.boot()
    assert done.status == 78 and "`probe.url` is missing" in done.messages and not front.is_ready, done


def test_a_bucket_that_is_away_takes_no_proved_release_out_of_service(make_front):
    front = make_front(delta=None)
    booted(front)
    os.rename(front.bucket, front.base / "away")
    done = front.boot()
    assert done.status == 0 and "degraded" in done.messages, done
    assert front.fetch() == (200, "page 1 1\n") and front.status()[0] == 2


def test_what_is_rendered_no_more_is_not_inherited(front):
    front.template("release/more.ini", "password = {{db.password}}\n")
    booted(front)
    assert (front.site / "current/more.ini").exists()
    (front.root / "etc/amorce/templates/release/more.ini.mustache").unlink()
    done = front.sync()
    assert done.status == 0, done
    assert not (front.site / "current/more.ini").exists()
