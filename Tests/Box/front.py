"""A front: an instance with amorce and what it ships, which boots by cloud-init."""

import json
import os
import re
import shutil
from pathlib import Path

import application
from instance import Instance
from programs import BoxError, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
WHOLE_PAGE = re.compile(r'name="edition" content="(\d+)".*<footer>edition (\d+)</footer>', re.DOTALL)


def amorce_binary():
    """The binary under test, or None where the environment names none."""
    path = os.environ.get("AMORCE_BINARY")
    if not path:
        return None
    if not os.access(path, os.X_OK):
        raise BoxError(f"AMORCE_BINARY={path} is not a program")
    return Path(path)


def shipped_layer(folder):
    """What amorce's package puts into the AMI, each file in its place, from this repository."""
    folder = Path(folder)
    units = folder / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in (REPOSITORY / "cloud-init").glob("*.service"):
        shutil.copy(unit, units)
    for source, target in (("amorce.tmpfiles", "usr/lib/tmpfiles.d/amorce.conf"), ("amorce.logrotate", "etc/logrotate.d/amorce")):
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / "cloud-init" / source, path)
    templates = REPOSITORY / "templates"
    if templates.is_dir():
        shutil.copytree(templates, folder / "usr/share/amorce/templates", symlinks=True, ignore=shutil.ignore_patterns("www"))
        if (templates / "www").is_dir():
            shutil.copytree(templates / "www", folder / "usr/share/amorce/www", symlinks=True)
    binary = amorce_binary()
    if binary:
        (folder / "usr/bin").mkdir(parents=True)
        shutil.copy(binary, folder / "usr/bin/amorce")
    return folder


class Front(Instance):
    def install_amorce(self, settings, secrets=None):
        """The settings of the image, the files with its secrets, and the units switched on."""
        self.write("/etc/amorce/amorce.yaml", settings, mode=0o600)
        for path, text in (secrets or {}).items():
            self.write(path, text, mode=0o600)
        for unit in ("amorce-boot.service", "amorce-recover.service"):
            self.enable(unit)

    def use_ec2(self):
        """cloud-init takes everything from the metadata service."""
        self.write("/etc/cloud/cloud.cfg.d/91-source.cfg", "datasource_list: [ Ec2 ]\n")

    def use_seed(self, user_data, instance_id):
        """cloud-init takes everything from a NoCloud seed in the image."""
        self.write("/etc/cloud/cloud.cfg.d/91-source.cfg", "datasource_list: [ NoCloud ]\n")
        seed = "/var/lib/cloud/seed/nocloud"
        self.write(f"{seed}/meta-data", f"instance-id: {instance_id}\nlocal-hostname: {self.name}\n")
        self.write(f"{seed}/user-data", user_data, mode=0o600)

    # amorce

    def amorce(self, *arguments, timeout=180):
        return self.execute("amorce", *arguments, timeout=timeout)

    def wait_for_amorce(self, timeout=120):
        """Waits for the end of the boot unit, whichever it is; returns its state: `active` or `failed`."""
        def ended():
            state = self.execute("systemctl", "show", "--property=ActiveState", "--value", "amorce-boot.service").stdout.strip()
            return state if state in ("active", "failed") else None

        try:
            return wait_until(ended, timeout, f"{self.name}: amorce-boot.service", pause=0.2)
        except BoxError as error:
            raise BoxError(f"{error}\n{self.story()}") from None

    def status(self):
        """(exit code, the status as JSON)."""
        done = self.amorce("status", "--json")
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None

    def must_be_ready(self):
        state = self.wait_for_amorce()
        done = self.amorce("status")
        if state != "active" or done.returncode != 0:
            raise BoxError(f"{self.name}: unit {state}, status {done.returncode}\n{done.stdout}{done.stderr}\n{self.story()}")

    # What a visitor and a load balancer see; both come from the network.

    def get(self, path="/", visitor=None, timeout=30):
        return (visitor or self.host).get(self.host.address, path, host=application.HOST_NAME, timeout=timeout)

    def health(self):
        return self.get("/amorce/health")[0]

    def edition(self, path="/"):
        """The edition a whole page shows; an error where it is no page of the site, or shows two."""
        status, body = self.get(path)
        return edition_of(status, body)

    def everything_it_said(self):
        """All its logs: console, journal, the files in /var/log and what amorce shows in /run."""
        parts = [self.console.read_text(errors="replace"), self.journal(), self.run("sh", "-c", "cat /run/amorce/*")]
        for path in self.path("/var/log").rglob("*"):
            if path.is_file() and not path.is_symlink() and path.suffix != ".journal":
                parts.append(path.read_bytes().decode("utf-8", "replace"))
        return "\n".join(parts)

    def arguments_of_processes(self):
        """The argument lists of all that runs in it now, which every user of a machine may read."""
        found = []
        for process in self._group.members():
            try:
                found.append(Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
            except OSError:
                continue
        return found


def edition_of(status, body):
    found = WHOLE_PAGE.search(body)
    if status != 200 or application.TITLE not in body or not found:
        raise BoxError(f"no page of the site: status {status}: {body[:400]!r}")
    if found[1] != found[2]:
        raise BoxError(f"a mixed page: edition {found[1]} above, {found[2]} below")
    return int(found[1])
