"""The standard AMI as a folder, made of Debian's packages once and kept in the cache."""

import hashlib
import os
import shutil
from pathlib import Path

from programs import BoxError, run

SUITE = "bookworm"
PACKAGES = (
    "systemd-sysv", "dbus", "cloud-init", "rsync", "apache2", "php-fpm", "php-mysql", "php-cli", "iproute2",
    "ca-certificates", "rsyslog", "logrotate", "curl",
)
# Counted up when what is done below changes, so that no old folder is taken for the new one.
RECIPE = 2

FILES = {
    # No console in another language, no ssh: what cloud-init would do for them fails without their packages.
    "etc/cloud/cloud.cfg.d/90-box.cfg": """\
locale: false
ssh_deletekeys: false
ssh_genkeytypes: []
network: { config: disabled }
datasource:
  # A container shows no DMI, so cloud-init cannot see that the platform is EC2 and has to be told to ask all the same.
  Ec2: { strict_id: false, max_wait: 20, timeout: 5 }
""",
    "etc/hostname": "standard-ami\n",
    "etc/resolv.conf": "# The box has no name server: names are in /etc/hosts.\n",
}
# They would reach for the network, or for hardware, in the middle of a test.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "e2scrub_reap.service")


def cache():
    return Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "amorce-box"


def debian_sources():
    """The host's own package sources, those that are Debian's alone: the box names no mirror."""
    found = []
    for folder in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        if folder.suffix not in (".list", ".sources") or not folder.is_file():
            continue
        text = folder.read_text()
        signed_by_debian = "debian-archive-keyring" in text
        plain_entry = folder.name == "sources.list" and f" {SUITE} main" in text
        if SUITE in text and (signed_by_debian or plain_entry):
            found.append(str(folder))
    if not found:
        raise BoxError(f"no source of Debian {SUITE} below /etc/apt")
    return found


def kept(kind, ingredients, build):
    """The folder in the cache that `build(folder)` made of these ingredients, made now if there is none."""
    digest = hashlib.sha256("\n".join(ingredients).encode()).hexdigest()[:16]
    folder = cache() / f"{kind}-{digest}"
    if folder.is_dir():
        return folder
    unfinished = folder.with_name(f"{folder.name}.unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    try:
        build(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another run was first.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def standard_ami():
    """The read-only folder every instance is an overlay of."""
    return kept("ami", [SUITE, str(RECIPE), *PACKAGES, *(f"{name}\n{text}" for name, text in FILES.items()), *MASKED], _build)


def _build(folder):
    run("mmdebstrap", "--variant=minbase", "--quiet", "--include=" + ",".join(PACKAGES), SUITE, folder,
        *debian_sources(), timeout=900)
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    for unit in MASKED:
        path = folder / "etc/systemd/system" / unit
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")
    # Each instance makes its own.
    (folder / "etc/machine-id").write_text("")
