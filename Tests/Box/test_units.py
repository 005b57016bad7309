"""The unit files and what ships beside them, judged by the real systemd, cloud-init, tmpfiles and logrotate."""

import email
import subprocess

import pytest
import yaml

from front import REPOSITORY
from programs import run

UNITS = ("amorce-recover.service", "amorce-boot.service", "amorce-sync.service")
EXAMPLES = REPOSITORY / "cloud-init/examples"

# Does from inside the unit all that amorce does and a unit can forbid or deadlock.
STAND_IN = """#!/bin/sh
set -e
test -r /etc/amorce/conf.d/50-test.yaml
echo "stand-in: the settings are here"
cat /proc/sys/kernel/random/boot_id > /run/amorce/ready
mkdir -p /run/amorce/staged/upper /run/amorce/staged/work /var/lib/amorce/kept
unshare --mount --propagation private sh -ec '
    mount -t overlay check -o lowerdir=/etc,upperdir=/run/amorce/staged/upper,workdir=/run/amorce/staged/work /etc
    echo "# staged" >> /etc/apache2/apache2.conf
    apache2ctl -t
    php-fpm8.2 -t
'
! grep -q staged /etc/apache2/apache2.conf
install -o www-data -g www-data -m 2775 -d /var/www/boutique
mkdir -p /var/www/from && rsync -a /var/www/from/ /var/www/boutique/
getent hosts orchestrator.acme.internal
systemctl reload-or-restart php8.2-fpm
systemctl reload-or-restart apache2
echo "stand-in: done"
"""
USER_DATA = """#cloud-config
write_files:
  - { path: /etc/amorce/conf.d/50-test.yaml, permissions: "0600", content: "app: boutique" }
runcmd:
  - [ sh, -c, "systemctl is-active amorce-boot > /run/seen-by-runcmd" ]
"""


@pytest.fixture(scope="module")
def front(box):
    front = box.front("units")
    front.path("/usr/bin").mkdir(parents=True, exist_ok=True)
    front.write("/usr/bin/amorce", STAND_IN, mode=0o755)
    front.install_amorce("app: boutique\n")
    front.use_seed(USER_DATA, "i-units")
    front.power_on()
    assert front.wait_for_system() == "running", front.story()
    return front


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_no_fault(front, unit):
    done = front.execute("systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", f"/usr/lib/systemd/system/{unit}")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_misspelt_unit_would_have_been_found(front):
    text = (REPOSITORY / "cloud-init" / "amorce-boot.service").read_text().replace("RemainAfterExit", "RemainAfterExits")
    front.write("/etc/systemd/system/wrong.service", text)
    done = front.execute("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/wrong.service")
    front.path("/etc/systemd/system/wrong.service").unlink()
    assert "RemainAfterExits" in done.stdout + done.stderr


def test_the_boot_unit_reloads_services_without_waiting_for_itself(front):
    assert front.run("systemctl", "is-active", "amorce-boot", "apache2", "php8.2-fpm").split() == ["active"] * 3
    console = front.console.read_text(errors="replace")
    assert "stand-in: the settings are here" in console and "stand-in: done" in console
    # The unit sees the boot that everyone else sees: the health file is bound to it.
    assert front.run("cat", "/run/amorce/ready") == front.run("cat", "/proc/sys/kernel/random/boot_id")
    # cloud-init's last stage, and with it `cloud-init status --wait`, comes after amorce.
    assert front.run("cloud-init", "status", "--wait").strip() == "status: done"
    assert front.run("cat", "/run/seen-by-runcmd").strip() == "active"


def test_no_service_is_ordered_after_amorce(front):
    ordered = set(front.run("systemctl", "show", "--property=Before", "--value", "amorce-boot.service").split())
    assert ordered <= {"multi-user.target", "shutdown.target", "amorce-sync.service"}
    after = set(front.run("systemctl", "show", "--property=After", "--value", "amorce-boot.service").split())
    assert {"network-online.target", "cloud-init.service"} <= after
    assert not {"multi-user.target", "cloud-final.service", "cloud-init.target"} & after


def test_systemd_found_no_ordering_cycle(front):
    assert "ordering cycle" not in front.journal()


def test_the_sync_unit_runs_each_time_it_is_started(front):
    for _ in range(2):
        front.run("systemctl", "start", "amorce-sync.service")
    assert front.journal("amorce-sync.service").count("stand-in: done") == 2


def test_the_folders_are_there_with_their_modes(front):
    modes = front.run("stat", "--format=%a %U:%G %n", "/run/amorce", "/var/lib/amorce").splitlines()
    assert modes == ["755 root:root /run/amorce", "700 root:root /var/lib/amorce"]


def test_logrotate_turns_the_log_over(front):
    front.write("/var/log/amorce.log", "a line\n", mode=0o640)
    front.run("logrotate", "--force", "/etc/logrotate.d/amorce")
    assert front.path("/var/log/amorce.log.1").read_text() == "a line\n"
    assert front.run("stat", "--format=%a %U:%G", "/var/log/amorce.log").strip() == "640 root:adm"


# User-data

def _parts(name):
    """(content type, text) of each part of an example, as cloud-init takes it apart."""
    text = (EXAMPLES / name).read_text()
    if text.startswith("Content-Type: multipart/"):
        return [(part.get_content_type(), part.get_payload(decode=True).decode())
                for part in email.message_from_string(text).walk() if not part.is_multipart()]
    return [({"#cloud-config": "text/cloud-config", "#amorce": "text/x-amorce"}[text.splitlines()[0]], text)]


def test_there_is_an_example_of_every_form():
    assert {path.name: [kind for kind, _ in _parts(path.name)] for path in EXAMPLES.iterdir()} == {
        "amorce.yaml": ["text/x-amorce"],
        "cloud-config.yaml": ["text/cloud-config"],
        "mime.txt": ["text/cloud-config", "text/x-amorce"],
    }


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.iterdir()])
def test_cloud_init_accepts_the_example(name, tmp_path):
    """Every cloud-config in it passes the schema; everything that is amorce's is settings that begin as they must."""
    for kind, text in _parts(name):
        if kind == "text/cloud-config":
            part = tmp_path / "part.yaml"
            part.write_text(text)
            assert "Valid cloud-config" in run("cloud-init", "schema", "--config-file", part)
            settings = [yaml.safe_load(file["content"]) for file in yaml.safe_load(text).get("write_files", [])
                        if file["path"].startswith("/etc/amorce/conf.d/")]
        else:
            assert text.startswith("#amorce\n")
            settings = [yaml.safe_load(text)]
        for layer in settings:
            assert layer["environment"] == "preprod" and "host" in layer["values"]["db"]
    assert (EXAMPLES / name).stat().st_size <= 16 * 1024


def test_the_schema_refuses_what_is_wrong(tmp_path):
    """So that its word on the examples means something. (22.4 lets unknown keys pass that later versions refuse.)"""
    part = tmp_path / "part.yaml"
    part.write_text("#cloud-config\nwrite_files: { path: /etc/amorce/amorce.yaml }\n")
    done = subprocess.run(["cloud-init", "schema", "--config-file", part], capture_output=True, text=True)
    assert done.returncode != 0 and "write_files" in done.stdout + done.stderr


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.iterdir()])
def test_an_instance_boots_with_the_example(box, name):
    """cloud-init itself takes the user-data, leaves amorce's part alone and finds nothing wrong."""
    front = box.front("ex-" + name.split(".")[0][:8])
    front.use_seed((EXAMPLES / name).read_text(), "i-" + name)
    front.power_on()
    try:
        front.wait_for_system()
        assert front.run("cloud-init", "status", "--wait").strip() == "status: done"
        if name == "cloud-config.yaml":
            assert "preprod" in front.run("cat", "/etc/amorce/conf.d/50-environment.yaml")
    finally:
        front.destroy()
