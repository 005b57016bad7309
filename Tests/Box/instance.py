"""One machine of the box: an overlay of the AMI that boots with systemd as PID 1 on its own network."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from isolation import ControlGroup
from programs import BoxError, Daemon, run, wait_until


class Instance:
    def __init__(self, folder, host, layers, names):
        """`layers`: folders, the uppermost first. `names`: the network's names, written to /etc/hosts."""
        self.host = host
        self.name = host.name
        self.folder = Path(folder)
        self.root = self.folder / "root"
        self.console = self.folder / "console.log"
        self._nspawn = None
        self._group = None
        self._init = None
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        lower = ":".join(str(layer) for layer in layers)
        run("mount", "-t", "overlay", f"box-{self.name}", "-o",
            f"lowerdir={lower},upperdir={self.folder}/upper,workdir={self.folder}/work", self.root)
        lines = ["127.0.0.1 localhost", f"127.0.1.1 {self.name}"] + [f"{address} {name}" for name, address in names.items()]
        self.write("/etc/hosts", "\n".join(lines) + "\n")
        self.write("/etc/hostname", self.name + "\n")

    # Files: directly in the overlay, whether it runs or not. /run and /tmp of a running instance are not there.

    def path(self, absolute):
        return self.root / absolute.lstrip("/")

    def write(self, absolute, content, mode=0o644):
        path = self.path(absolute)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)

    def enable(self, unit, target="multi-user.target"):
        link = self.path(f"/etc/systemd/system/{target}.wants/{unit}")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(f"/usr/lib/systemd/system/{unit}")

    # Power

    def power_on(self):
        """Boots it; the console goes on where it was."""
        self._group = ControlGroup(f"amorce-box-{os.getpid()}-{self.name}")
        # A pid namespace around nspawn: when nspawn goes, by whatever signal, the kernel ends all that it started.
        argv = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
                "systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine=amorce-box-{os.getpid()}-{self.name}",
                "--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
                f"--network-namespace-path={self.host.namespace}", "--boot"]
        self._nspawn = Daemon(self.name, self._group.command(argv), self.console)
        self._init = wait_until(lambda: self._nspawn.must_run() and self._search(self._nspawn.process.pid), 20,
                                f"{self.name}: PID 1 of the instance")
        return self

    def _search(self, process):
        """The process two pid namespaces further down that is number 1 in its own."""
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                depth = len(numbers)
                if depth >= 3 and numbers[-1] == "1" and Path(f"/proc/{process}/comm").read_text().strip() == "systemd":
                    return process
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            try:
                found = self._search(int(child))
            except FileNotFoundError:
                continue
            if found:
                return found
        return None

    def reboot(self):
        """systemd's own reboot. nspawn, which keeps the group it was started in, leaves the second start to whoever made
        the first and says so by its exit status; the kernel's boot identifier in there is then a new one."""
        self.run("systemctl", "reboot")
        wait_until(lambda: not self._nspawn.is_running, 60, f"{self.name}: going down")
        if self._nspawn.process.returncode != 133:
            raise BoxError(f"{self.name}: went down with {self._nspawn.process.returncode}\n{self.story()}")
        self.cut_power()
        self.power_on()

    def power_off(self):
        """An orderly end: every service is stopped."""
        if self._nspawn and self._nspawn.is_running:
            self.run("systemctl", "poweroff")
            wait_until(lambda: not self._nspawn.is_running, 60, f"{self.name}: powering off")
        self.cut_power()

    def cut_power(self):
        """The end without a word, and the control group after it."""
        if self._nspawn:
            self._nspawn.stop(signal.SIGKILL)
            self._nspawn = None
        if self._group:
            wait_until(lambda: not self._group.members(), 10, f"{self.name}: its last process")
            self._group.remove()
            self._group = None

    def destroy(self):
        """Nothing is left; safe to repeat."""
        self.cut_power()
        if not self.folder.exists():
            return
        run("umount", self.root)
        shutil.rmtree(self.folder)

    # Inside

    def execute(self, *argv, timeout=120, input=None):
        """Runs a program inside the booted instance; the result as subprocess gives it."""
        self._nspawn.must_run()
        argv = ["nsenter", "--target", str(self._init), "--all", "--", "env", "-i", "LANG=C.UTF-8", "HOME=/root",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] + [str(word) for word in argv]
        return subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=timeout, input=input, cwd="/")

    def run(self, *argv, timeout=120, input=None):
        """Runs a program inside and returns its output; anything but exit status 0 is an error."""
        done = self.execute(*argv, timeout=timeout, input=input)
        if done.returncode != 0:
            raise BoxError(f"{self.name}: {' '.join(map(str, argv))}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def wait_for_system(self, timeout=60):
        """Waits for the last job of the boot; `running`, or `degraded` where a unit has failed."""
        wait_until(lambda: self.execute("systemctl", "is-system-running").stdout.strip() not in ("", "offline", "initializing"),
                   timeout, f"{self.name}: systemd answers")
        return self.execute("systemctl", "is-system-running", "--wait", timeout=timeout).stdout.strip()

    def journal(self, unit=None):
        return self.run("journalctl", "--no-pager", "--output=short-precise", *(["--unit", unit] if unit else []))

    def story(self):
        """What a person would look at when the instance did not do what it should."""
        parts = [f"--- console of {self.name}\n" + self.console.read_text(errors="replace")[-6000:]]
        if self._nspawn and self._nspawn.is_running:
            for argv in (("systemctl", "--failed", "--no-pager"), ("journalctl", "--no-pager", "-n", "80")):
                parts.append(f"--- {' '.join(argv)}\n" + self.execute(*argv).stdout)
        return "\n".join(parts)
