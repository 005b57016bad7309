"""A front from its first boot to its reboot: what it serves, and what must never get through to a visitor.

The tests stand in the order of a front's life and share one; each leaves front and orchestrator as it found them.
"""

import json
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

import application
import bucket
import settings
from front import amorce_binary, edition_of
from load import Load
from metadata import TOKEN_PATH
from network import METADATA
from programs import BoxError, wait_until

MARK = "MADE-UP-SECRET"


@pytest.fixture(scope="module", autouse=True)
def binary():
    if amorce_binary() is None:
        pytest.fail("AMORCE_BINARY must name the binary under test", pytrace=False)


def new_front(box, name, image=None, user_data=None, **metadata):
    metadata.setdefault("tokens_required", False)
    front = box.front(name, user_data=user_data or settings.user_data(), **metadata)
    front.use_ec2()
    front.install_amorce(image or settings.image(), settings.FILES)
    return front


@pytest.fixture(scope="module")
def front(box, binary):
    """Booted by cloud-init alone, from the metadata service, and watched by a load balancer from the first moment."""
    front = new_front(box, "front")
    front.power_on()
    front.seen_at_first_health = first_page_behind_health(front)
    front.must_be_ready()
    yield front
    front.destroy()


def first_page_behind_health(front, timeout=120):
    """Asks the health URL until it says 200, and then for a page at once: what a load balancer's first visitor gets."""
    def answer():
        if front.health() == 200:
            return front.get()
        if front.execute("systemctl", "is-failed", "amorce-boot.service").returncode == 0:
            pytest.fail("amorce-boot.service has failed\n" + front.story(), pytrace=False)
        return None

    try:
        return wait_until(answer, timeout, "the health URL says 200", pause=0.05)
    except BoxError as error:
        pytest.fail(f"{error}\n{front.story()}", pytrace=False)


def release_of(front):
    return front.run("readlink", f"/var/www/{application.APP}/current").strip()


@contextmanager
def as_it_was(front):
    """Whatever happens inside, the front serves the same release, whole, and nothing else afterwards."""
    release, edition = release_of(front), front.edition()
    apache = front.run("sh", "-c", "find -L /etc/apache2 /etc/php -type f -exec sha256sum {} + | sort")
    yield
    assert release_of(front) == release
    assert front.edition() == edition
    assert front.run("sh", "-c", "find -L /etc/apache2 /etc/php -type f -exec sha256sum {} + | sort") == apache


@contextmanager
def instead_of(tree):
    """The orchestrator's tree is set aside; a test may put another in its place."""
    aside = tree.with_name(tree.name + ".aside")
    tree.rename(aside)
    try:
        yield aside
    finally:
        subprocess.run(["rm", "-rf", tree], check=True)
        aside.rename(tree)


# The first boot

def test_it_serves_the_current_site_from_the_database_of_its_environment(front):
    status, body = front.get()
    assert edition_of(status, body) == 2
    assert application.TITLE in body


def test_the_delta_is_complete(front):
    assert front.get("/" + application.UPLOAD) == (200, application.LAMP)
    assert front.execute("test", "-e", f"/var/www/{application.APP}/current/{application.RETIRED}").returncode == 1
    assert front.execute("test", "-e", f"/var/www/{application.APP}/current/wp-includes/version.php").returncode == 0


def test_the_first_visitor_behind_the_health_url_gets_the_site(front):
    assert edition_of(*front.seen_at_first_health) == 2


def test_everything_on_the_front_is_well(front):
    assert front.wait_for_system() == "running", front.story()
    assert front.run("cloud-init", "status", "--wait").strip().endswith("status: done")
    code, status = front.status()
    assert code == 0 and isinstance(status, dict)


def test_amorce_always_shows_a_token(box, front):
    # cloud-init names itself in some of its calls and its HTTP library in the others.
    calls = [call for call in box.metadata.calls_of(front.host.address)
             if not call.agent.startswith(("Cloud-Init", "python-requests"))]
    assert any(call.path == TOKEN_PATH and call.method == "PUT" for call in calls)
    assert any("iam/security-credentials/" in call.path for call in calls)
    assert [call for call in calls if call.method != "PUT" and not call.had_token] == []


def test_no_secret_is_in_a_file_that_everyone_may_read(front):
    found = front.run("sh", "-c", f"find /etc /var /run /usr/share -xdev -type f -perm -o=r -exec grep -lF {MARK} {{}} + || :")
    assert found == ""


def test_a_health_file_of_another_boot_says_nothing(front):
    ready = front.run("cat", "/run/amorce/ready")
    assert front.health() == 200
    try:
        stale = {**json.loads(ready), "bootIdentifier": "00000000-0000-4000-8000-000000000000"}
        front.run("sh", "-c", "cat > /run/amorce/ready", input=json.dumps(stale))
        assert front.health() == 503
        front.run("rm", "/run/amorce/ready")
        assert front.health() == 503
    finally:
        front.run("sh", "-c", "cat > /run/amorce/ready && chmod 644 /run/amorce/ready", input=ready)
    assert front.health() == 200


# Re-syncs

@pytest.mark.parametrize("how", ["command", "unit"])
def test_a_resync_under_load_loses_nothing_and_mixes_nothing(box, front, how):
    before, release = front.edition(), release_of(front)
    application.Application.change(box.orchestrator.tree, before + 1)
    with Load(front, box.visitor) as load:
        if how == "command":
            done = front.amorce("sync")
        else:
            done = front.execute("systemctl", "start", "amorce-sync.service")
    assert done.returncode == 0, done.stderr + front.story()
    assert load.lost == []
    assert set(load.editions) == {before, before + 1}
    assert front.edition() == before + 1
    assert release_of(front) != release
    assert front.health() == 200
    assert front.status()[0] == 0


def test_a_rollback_serves_the_release_before(box, front):
    before, release = front.edition(), release_of(front)
    with Load(front, box.visitor) as load:
        done = front.amorce("rollback")
    assert done.returncode == 0, done.stderr
    assert load.lost == []
    assert front.edition() == before - 1
    assert release_of(front) != release
    done = front.amorce("sync")
    assert done.returncode == 0, done.stderr
    assert front.edition() == before


def test_no_more_releases_are_kept_than_the_settings_say(front):
    kept = front.run("ls", f"/var/www/{application.APP}/releases").split()
    assert 1 <= len(kept) <= 3, kept


def empty(tree, aside):
    tree.mkdir()


def vanished(tree, aside):
    pass


def without_a_marker(tree, aside):
    subprocess.run(["cp", "-a", aside, tree], check=True)
    (tree / application.MARKER).unlink()


def of_another_app(tree, aside):
    subprocess.run(["cp", "-a", aside, tree], check=True)
    (tree / application.MARKER).write_text("other\n")


def mostly_gone(tree, aside):
    subprocess.run(["cp", "-a", aside, tree], check=True)
    subprocess.run(["rm", "-rf", tree / "wp-includes"], check=True)


@pytest.mark.parametrize("become", [empty, vanished, without_a_marker, of_another_app, mostly_gone], ids=lambda f: f.__name__)
def test_a_damaged_orchestrator_folder_changes_nothing(box, front, become):
    with as_it_was(front), instead_of(box.orchestrator.tree) as aside:
        become(box.orchestrator.tree, aside)
        with Load(front, box.visitor) as load:
            done = front.amorce("sync")
        assert done.returncode not in (0, 2, 64), done.stderr
        assert load.lost == []
    done = front.amorce("sync")
    assert done.returncode == 0, done.stderr


BROKEN = {
    "an Apache directive that does not exist": ("etc/apache2/conf-enabled/zz-broken.conf.mustache", "NoSuchDirective on\n"),
    "a name that nothing defines": ("etc/apache2/conf-enabled/zz-broken.conf.mustache", "# {{ nothing.here }}\n"),
    "a section that is not closed": ("etc/apache2/conf-enabled/zz-broken.conf.mustache", "{{#db}}\n"),
    "an FPM pool without a listener": ("etc/php/8.2/fpm/pool.d/zz-broken.conf.mustache", "[broken]\nuser = www-data\npm = static\n"),
    "a syntax error in PHP": ("release/wp-content/mu-plugins/broken.php.mustache", "<?php if (\n"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_template_never_goes_live(box, front, what):
    path, text = BROKEN[what]
    template = f"/etc/amorce/templates/{path}"
    with as_it_was(front):
        front.write(template, text)
        try:
            with Load(front, box.visitor) as load:
                done = front.amorce("sync")
        finally:
            front.path(template).unlink()
        assert done.returncode in (1, 65), done.stderr
        assert "broken" in done.stderr
        assert load.lost == []
    done = front.amorce("sync")
    assert done.returncode == 0, done.stderr


@contextmanager
def wrong_database_password(box, front):
    right = front.metadata.user_data
    front.metadata.user_data = settings.user_data(password=f"{MARK} that is wrong")
    try:
        yield
    finally:
        front.metadata.user_data = right


@contextmanager
def page_that_does_not_work(box, front):
    page = box.orchestrator.tree / application.THEME / "index.php"
    text = page.read_text()
    page.write_text("<?php throw new Exception('not ready for visitors');\n")
    try:
        yield
    finally:
        page.write_text(text)


UNPROVED = pytest.mark.parametrize("fault", [wrong_database_password, page_that_does_not_work], ids=lambda f: f.__name__)


@UNPROVED
def test_what_does_not_prove_itself_is_not_what_serves(box, front, fault):
    with as_it_was(front):
        with fault(box, front):
            done = front.amorce("sync")
        assert done.returncode == 1, done.stderr
        assert "in a rehearsal before the switch" in done.stderr
        # It serves what it served, and that was proved: no reason to take the front out of service.
        assert front.health() == 200
    done = front.amorce("sync")
    assert done.returncode == 0, done.stderr


@UNPROVED
def test_no_visitor_is_the_first_to_see_what_does_not_work(box, front, fault):
    with as_it_was(front), Load(front, box.visitor) as load:
        with fault(box, front):
            done = front.amorce("sync")
        assert done.returncode == 1, done.stderr
    assert load.lost == []


def test_a_plan_changes_nothing_and_tells_what_would_change(box, front):
    edition = front.edition()
    with as_it_was(front):
        application.Application.change(box.orchestrator.tree, edition + 1)
        try:
            done = front.amorce("plan")
        finally:
            application.Application.change(box.orchestrator.tree, edition)
        assert done.returncode == 0, done.stderr
        assert f"{application.THEME}/edition.php" in done.stdout
        assert MARK not in done.stdout + done.stderr


# Power

def test_a_reboot_comes_back_ready_and_current(box, front):
    edition = front.edition()
    application.Application.change(box.orchestrator.tree, edition + 1)
    front.reboot()
    assert edition_of(*first_page_behind_health(front)) == edition + 1
    front.must_be_ready()
    assert front.wait_for_system() == "running", front.story()


@pytest.mark.parametrize("moment", [0.05, 0.4, 0.9])
def test_a_power_cut_during_a_sync_ends_in_the_same_site(box, front, moment):
    edition = front.edition()
    application.Application.change(box.orchestrator.tree, edition + 1)
    front.run("systemctl", "start", "--no-block", "amorce-sync.service")
    time.sleep(moment)
    front.cut_power()
    front.power_on()
    assert edition_of(*first_page_behind_health(front)) == edition + 1
    front.must_be_ready()


def test_the_orchestrator_dead_at_boot_gives_a_degraded_front_that_serves(box):
    box.orchestrator.host.unplug()
    try:
        front = new_front(box, "degraded")
        front.power_on()
        # The backup's edition, which is what there is.
        assert edition_of(*first_page_behind_health(front)) == 1
        assert front.wait_for_amorce() == "active", front.story()
        done = front.amorce("status")
        assert done.returncode == 2, done.stdout + done.stderr
        assert MARK not in front.everything_it_said()
    finally:
        box.orchestrator.host.plug()
    done = front.amorce("sync")
    assert done.returncode == 0, done.stderr
    assert front.edition() == application.Application.edition(box.orchestrator.tree)
    assert front.amorce("status").returncode == 0
    front.destroy()


# Other ways to boot

def test_a_front_that_cannot_work_says_so_at_once(box):
    """A first boot with a wrong password: nothing was there before, and nothing must be called ready."""
    front = new_front(box, "hopeless", user_data=settings.user_data(password=f"{MARK} that is wrong"))
    front.power_on()
    assert front.wait_for_amorce() == "failed"
    assert front.health() != 200
    assert front.amorce("status").returncode == 1
    # The reason is where a person finds it without logging in.
    assert "prove" in front.console.read_text(errors="replace")
    assert MARK not in front.everything_it_said()
    front.destroy()


def test_a_front_boots_from_the_stricter_bucket(box):
    second = box.second_bucket()
    front = new_front(box, "strict", image=settings.image(endpoint=second.endpoint), keys=second.keys)
    front.power_on()
    front.must_be_ready()
    assert front.edition() >= 2
    front.destroy()


def test_a_front_boots_from_a_seed_where_there_is_no_metadata_service(box):
    front = box.front("seeded")
    front.host.hide(METADATA)
    front.use_seed(settings.environment(), "i-seeded")
    image = settings.image().replace("  newest-within:", f"  region: {bucket.REGION}\n  newest-within:")
    front.install_amorce(image, settings.FILES)
    key, secret, _ = box.bucket.keys
    front.write("/etc/default/amorce", f"AWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY={secret}\n", mode=0o600)
    front.power_on()
    front.must_be_ready()
    assert front.edition() >= 2
    assert front.run("cloud-init", "status", "--wait").strip().endswith("status: done")
    front.destroy()


# Secrets: last, when everything has been said

def test_no_secret_is_in_an_argument_list(box, front):
    seen, over = [], threading.Event()

    def look():
        while not over.is_set():
            seen.extend(front.arguments_of_processes())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        front.run("systemctl", "start", "amorce-sync.service")
    finally:
        over.set()
        watcher.join()
    assert any("amorce sync" in words for words in seen)
    assert any("rsync" in words for words in seen)
    assert [words for words in seen if MARK in words or bucket.SECRET in words] == []


@pytest.mark.parametrize("arguments", [("settings",), ("status", "--json"), ("plan",), ("render", "--diff"), ("sync", "-v")],
                         ids=" ".join)
def test_no_command_prints_a_secret(front, arguments):
    done = front.amorce(*arguments)
    assert done.returncode == 0, done.stderr
    assert MARK not in done.stdout + done.stderr


def test_no_log_holds_a_secret(box, front):
    said = front.everything_it_said()
    assert "amorce" in said and "prove" in said
    assert MARK not in said
    assert MARK not in box.orchestrator.received()
