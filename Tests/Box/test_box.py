"""The box itself, without amorce: what the other tests stand on."""

import subprocess
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

import application
import bucket
import database
import orchestrator
from box import BUCKET_NAME, DATABASE_NAME, ORCHESTRATOR_NAME
from network import METADATA
from programs import wait_until

SEED = """#cloud-config
write_files:
  - { path: /etc/amorce/conf.d/50-test.yaml, permissions: "0600", content: "written by cloud-init" }
runcmd:
  - [ touch, /run/runcmd-was-here ]
"""


def test_an_instance_boots_by_cloud_init_and_reaches_every_part(box):
    front = box.front("smoke", user_data=b"#amorce\napp: boutique\n", tags={"Name": "a front; it's $HOME"})
    front.use_seed(SEED, "i-smoke")
    front.power_on()
    assert front.wait_for_system() == "running", front.story()
    assert front.run("cloud-init", "status", "--wait").strip() == "status: done"
    assert front.run("stat", "--format=%a", "/etc/amorce/conf.d/50-test.yaml").strip() == "600"
    front.run("test", "-e", "/run/runcmd-was-here")

    # Metadata: nothing without a token, the instance's own with one.
    curl = ["curl", "--silent", "--max-time", "5", "--write-out", "\n%{http_code}"]
    base = f"http://{METADATA}/latest"
    assert front.run(*curl, f"{base}/meta-data/instance-id").split() == ["401"]
    ttl = "X-aws-ec2-metadata-token-ttl-seconds"
    assert front.run(*curl, "-X", "PUT", f"{base}/api/token").split() == ["400"]
    assert front.run(*curl, "-X", "PUT", "-H", f"{ttl}: 21601", f"{base}/api/token").split() == ["400"]
    token = front.run(*curl, "-X", "PUT", "-H", f"{ttl}: 60", f"{base}/api/token").split()[0]
    asked = [*curl, "-H", f"X-aws-ec2-metadata-token: {token}"]
    assert front.run(*asked, f"{base}/meta-data/instance-id").split() == [front.metadata.instance_id, "200"]
    assert front.run(*asked, f"{base}/user-data").startswith("#amorce\napp: boutique\n")
    assert front.run(*asked, f"{base}/meta-data/tags/instance/Name").splitlines()[0] == "a front; it's $HOME"
    assert bucket.KEY in front.run(*asked, f"{base}/meta-data/iam/security-credentials/front")
    assert front.run(*asked, f"{base}/meta-data/nothing").split() == ["404"]
    assert [call.status for call in box.metadata.calls_of(front.host.address)][:3] == [401, 400, 400]

    # Orchestrator: by password only.
    module = f"rsync://{orchestrator.USER}@{ORCHESTRATOR_NAME}/{application.APP}/"
    front.write("/root/password", orchestrator.PASSWORD, mode=0o600)
    front.write("/root/wrong", "wrong", mode=0o600)
    listing = front.run("rsync", "--password-file=/root/password", module)
    assert application.MARKER in listing
    assert front.execute("rsync", "--password-file=/root/wrong", module).returncode == 5

    # The central log.
    front.run("logger", "--tcp", "--server", ORCHESTRATOR_NAME, "--port", "514", "a word from the front")
    _eventually(lambda: "a word from the front" in box.orchestrator.received())

    # Bucket: by signature only.
    # (curl 7.88 signs no query, so an object is asked for and not the list.)
    url = f"http://{BUCKET_NAME}:{bucket.PORT}/{bucket.NAME}/{box.backup.key}"
    signed = [*curl, "--output", "/root/backup", "--aws-sigv4", f"aws:amz:{bucket.REGION}:s3", "--user"]
    assert front.run(*signed, f"{bucket.KEY}:{bucket.SECRET}", url).split() == ["200"]
    assert front.path("/root/backup").read_bytes() == box.backup.path.read_bytes()
    assert front.run(*signed, f"{bucket.KEY}:wrong", url).split() == ["403"]

    # Database: with the password that breaks files, and with no other.
    ask = """<?php
        mysqli_report(MYSQLI_REPORT_OFF);
        $db = @mysqli_connect($argv[1], $argv[2], stream_get_contents(STDIN), $argv[3]);
        echo $db ? mysqli_query($db, "SELECT option_value FROM wp_options WHERE option_name='blogname'")->fetch_row()[0] : 'refused';
    """
    front.write("/root/ask.php", ask)
    arguments = ["php", "/root/ask.php", DATABASE_NAME, database.USER, database.NAME]
    assert front.run(*arguments, input=database.PASSWORD) == application.TITLE
    assert front.run(*arguments, input="wrong") == "refused"

    # Apache and PHP-FPM of the image run; a visitor reaches them.
    assert front.run("systemctl", "is-active", "apache2", "php8.2-fpm").split() == ["active", "active"]
    assert box.visitor.get(front.host.address)[0] == 200


def test_a_reboot_is_a_new_boot_of_the_same_root(box):
    front = box.front("again")
    front.use_seed("#cloud-config\n{}\n", "i-again")
    front.power_on()
    front.wait_for_system()
    front.run("touch", "/root/kept", "/run/forgotten")
    before = front.run("cat", "/proc/sys/kernel/random/boot_id")
    front.reboot()
    assert front.wait_for_system() == "running", front.story()
    assert front.run("cat", "/proc/sys/kernel/random/boot_id") != before
    front.run("test", "-e", "/root/kept")
    assert front.execute("test", "-e", "/run/forgotten").returncode == 1
    front.power_off()


def test_cloud_init_boots_from_the_metadata_service_alone(box):
    """As on EC2: no seed. In a container cloud-init asks as it would with HttpTokens=optional."""
    front = box.front("ec2", user_data=SEED.encode(), tokens_required=False)
    front.use_ec2()
    front.power_on()
    assert front.wait_for_system() == "running", front.story()
    assert "DataSourceEc2" in front.run("cloud-init", "status", "--long")
    assert front.run("cat", "/etc/amorce/conf.d/50-test.yaml") == "written by cloud-init"
    assert front.run("hostname").strip() == "ec2"


def test_two_instances_are_machines_of_their_own(box):
    one, two = (box.front(name) for name in ("one", "two"))
    for front in (one, two):
        front.use_seed("#cloud-config\n{}\n", front.name)
        front.power_on()
    for front in (one, two):
        front.wait_for_system()
    one.run("systemctl", "stop", "apache2")
    assert one.execute("systemctl", "is-active", "apache2").stdout.strip() == "inactive"
    assert two.run("systemctl", "is-active", "apache2").strip() == "active"
    one.cut_power()
    assert two.run("systemctl", "is-active", "apache2").strip() == "active"


def test_the_second_bucket_demands_the_session_token(box):
    second = box.second_bucket()
    key, secret, token = second.keys
    assert second.get(box.backup.key, second.keys) == box.backup.path.read_bytes()
    for wrong in ((key, "wrong", token), (key, secret, "wrong"), (key, secret, None)):
        with pytest.raises(ClientError) as refused:
            second.get(box.backup.key, wrong)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)


def test_an_unplugged_orchestrator_answers_nobody(box):
    box.orchestrator.host.unplug()
    try:
        try:
            box.visitor.connect(box.orchestrator.host.address, 873, timeout=1).close()
        except OSError:
            pass
        else:
            raise AssertionError("it answered")
    finally:
        box.orchestrator.host.plug()
    _eventually(lambda: box.visitor.connect(box.orchestrator.host.address, 873).close() is None)


def test_nothing_is_left_of_a_front(box):
    front = box.front("gone")
    front.use_seed("#cloud-config\n{}\n", "i-gone")
    front.power_on()
    front.wait_for_system()
    groups, folder = list(front._group.folders), front.folder
    members = front._group.members()
    assert len(members) > 5
    front.destroy()
    assert not folder.exists()
    assert not any(Path(group).exists() for group in groups)
    _eventually(lambda: not any(Path(f"/proc/{member}").exists() for member in members))
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    # Nothing of the box is seen outside this process.
    assert str(box.folder) not in subprocess.run(
        ["nsenter", "--mount=/proc/1/ns/mnt", "cat", "/proc/mounts"], capture_output=True, text=True).stdout


def _eventually(condition):
    wait_until(condition, 10, "it happens")
