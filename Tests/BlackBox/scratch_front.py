"""A front below a scratch root: the built binary, real Apache and PHP-FPM on free loopback ports, a folder as bucket and a
folder as orchestrator. Everything that differs between cases is an argument; nothing outside the scratch root is touched."""

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PHP = "8.2"


def binary():
    path = Path(os.environ.get("AMORCE_BINARY", REPOSITORY / "dist" / "amorce"))
    if not path.exists():
        raise RuntimeError(f"{path} is not built: run scripts/build")
    return str(path)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tree(folder):
    """Every name below a folder with all that must be equal when two trees are: kind, mode, content or target, time."""
    folder = Path(folder)
    result = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        if path.is_symlink():
            result[name] = ("link", os.readlink(path))
        elif path.is_dir():
            result[name] = ("dir", mode)
        else:
            result[name] = ("file", mode, hashlib.sha256(path.read_bytes()).hexdigest(), int(status.st_mtime))
    return result


class Run:
    """How the binary ended and what it said."""

    def __init__(self, process, stdout, stderr):
        self.status = process.returncode
        self.output = stdout
        self.messages = stderr

    def __repr__(self):
        return f"exit {self.status}\n{self.output}\n{self.messages}"


class ScratchFront:
    app = "boutique"

    def __init__(self, base, settings=None):
        self.base = Path(base)
        self.root = self.base / "root"
        self.bucket = self.base / "bucket"
        self.orchestrator = self.base / "orchestrator"
        self.published = 0
        self.port = free_port()
        self.settings = {
            "app": self.app,
            "environment": "preprod",
            "metadata": ["none"],
            "backup": {"from": f"file://{self.bucket}/"},
            "delta": {"from": f"{self.orchestrator}/"},
            "templates": ["apache", "php-fpm"],
            "values": self.values(),
            "services": self.services(),
            "probe": {"url": f"http://boutique.test:{self.port}/", "connect-to": f"127.0.0.1:{self.port}", "timeout": "5s"},
        }
        self._merge(self.settings, settings or {})
        self._prepare()

    @staticmethod
    def _merge(lower, upper):
        for key, value in upper.items():
            if isinstance(value, dict) and isinstance(lower.get(key), dict):
                ScratchFront._merge(lower[key], value)
            elif value is None:
                lower.pop(key, None)
            else:
                lower[key] = value

    def values(self):
        user = "www-data" if os.getuid() == 0 else str(os.getuid())
        return {
            "apache": {"server-name": "boutique.test", "port": self.port},
            "php": {"socket": str(self.root / "run/php/amorce.sock"), "user": user, "group": user, "listen-owner": user,
                    "start-children": 2, "idle-children": 2},
            "db": {"host": "db.test", "name": "boutique", "user": "boutique", "password": "MADE-UP-SECRET '\"$\\# x MADE-UP-TAIL"},
        }

    def services(self):
        apache = ["apache2", "-f", str(self.root / "etc/apache2/apache2.conf")]
        fpm = [f"php-fpm{PHP}", "--fpm-config", str(self.root / f"etc/php/{PHP}/fpm/php-fpm.conf")]
        return [
            # By its pid file, as systemd knows its main process: one of a rehearsal has the same name. The file is away for a
            # moment while it loads itself anew; a second one must not be started then.
            {"name": "php-fpm", "reload": ["sh", "-c",
                f"pgrep -f '[p]hp-fpm.*{fpm[2]}' >/dev/null || exit 1; for i in $(seq 50); do "
                f"kill -USR2 $(cat {self.root}/run/php/php-fpm.pid) 2>/dev/null && exit 0; sleep 0.1; done; exit 1"],
             "start": fpm + ["--daemonize"],
             "check": fpm + ["--test"], "rehearse": fpm + ["--nodaemonize"], "private": ["/run/php"]},
            {"name": "apache2", "reload": ["sh", "-c", f"test -s {self.root}/run/apache2/apache2.pid && exec \"$@\"", "reload"] + apache + ["-k", "graceful"],
             "start": apache + ["-k", "start"], "check": apache + ["-t"],
             "rehearse": apache + ["-D", "FOREGROUND"], "private": ["/run/apache2"]},
        ]

    def _prepare(self):
        for folder in ["etc/apache2/sites-enabled", f"etc/php/{PHP}/fpm/pool.d", "etc/amorce/templates", "run/php", "run/apache2",
                       "var/log/apache2", "var/lib", "usr/share/amorce"]:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        user = "User www-data\nGroup www-data" if os.getuid() == 0 else ""
        for source, target in [("apache2.conf", "etc/apache2/apache2.conf"), ("php-fpm.conf", f"etc/php/{PHP}/fpm/php-fpm.conf")]:
            text = (REPOSITORY / "demo/image" / source).read_text()
            text = text.replace("@ROOT@", str(self.root)).replace("@PORT@", str(self.port)).replace("@USER@", user)
            (self.root / target).write_text(text)
        shutil.copytree(REPOSITORY / "templates", self.root / "usr/share/amorce/templates",
                        ignore=shutil.ignore_patterns("www"), symlinks=True)
        shutil.copytree(REPOSITORY / "templates/www", self.root / "usr/share/amorce/www")
        self.template("release/environment.ini",
                      "{{! amorce: language=ini mode=0640 owner=root:www-data }}\n" if os.getuid() == 0 else
                      "{{! amorce: language=ini mode=0640 }}\n",
                      "[site]\nenvironment = {{environment}}\ninstance = scratch\n[database]\nhost = {{db.host}}\npassword = {{db.password}}\n")
        self.write_settings()
        self.bucket.mkdir()
        self.make_site(self.base / "site")
        self.backup()
        shutil.copytree(self.base / "site", self.orchestrator, symlinks=True)
        self.mark()

    def template(self, name, *text):
        place = self.root / "etc/amorce/templates" / (name + ".mustache")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(text))

    def write_settings(self, **changes):
        self._merge(self.settings, changes)
        (self.root / "etc/amorce/amorce.yaml").write_text(yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True))

    def make_site(self, folder):
        (folder / "assets").mkdir(parents=True)
        (folder / "lib/deep/er").mkdir(parents=True)
        # One page made of two files, so that a half state would show: both must be of one version.
        (folder / "index.php").write_text("<?php $a = '1'; require __DIR__ . '/lib/part.php'; echo \"page $a $b\\n\";\n")
        (folder / "lib/part.php").write_text("<?php $b = '1';\n")
        (folder / "assets/style.css").write_text("body {}\n")
        (folder / "withdrawn.html").write_text("old\n")
        for number in range(40):
            (folder / f"lib/deep/er/file{number}.txt").write_text(f"file {number}\n" * (number + 1))
        (folder / "assets/link.css").symlink_to("style.css")
        os.chmod(folder / "lib/deep/er/file3.txt", 0o640)
        # The same in every front, so that two fronts can be compared.
        for path in folder.rglob("*"):
            os.utime(path, (1_764_000_000, 1_764_000_000), follow_symlinks=False)

    def backup(self, stamp="20261124T030000Z", folder=None, suffix=".tar.zst", checksum=True):
        """Makes a backup of the site, as an administrator would."""
        archive = self.bucket / (stamp + suffix)
        flag = {".tar.zst": "--zstd", ".tar.gz": "--gzip", ".tar.xz": "--xz", ".tar.bz2": "--bzip2", ".tar": "--no-auto-compress"}[suffix]
        subprocess.run(["tar", flag, "-cf", archive, "-C", folder or self.base / "site", "."], check=True)
        if checksum:
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            Path(str(archive) + ".sha256").write_text(f"{digest}  {archive.name}\n")
        return archive

    def mark(self, app=None):
        (self.orchestrator / ".amorce-site").write_text((app or self.app) + "\n")

    def publish(self, version):
        """A new version on the orchestrator: both halves of the page, one new file, one changed, one gone. Each is a second newer than
        the one before: rsync looks at size and whole seconds."""
        self.published = max(self.published, int(time.time())) + 1
        for name, text in {
            "index.php": f"<?php $a = '{version}'; require __DIR__ . '/lib/part.php'; echo \"page $a $b\\n\";\n",
            "lib/part.php": f"<?php $b = '{version}';\n",
            f"new{version}.txt": "new\n",
            "assets/style.css": f"body {{ /* {version} */ }}\n",
        }.items():
            (self.orchestrator / name).write_text(text)
            os.utime(self.orchestrator / name, (self.published, self.published))
        gone = self.orchestrator / "withdrawn.html"
        if gone.exists():
            gone.unlink()

    # Running

    def start(self, *words, environment=None, wrapper=()):
        return subprocess.Popen(
            [*wrapper, binary(), words[0], "--root", str(self.root), *words[1:]], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            env={"PATH": os.environ["PATH"], **(environment or {})})

    def run(self, *words, environment=None, wrapper=(), timeout=120):
        process = self.start(*words, environment=environment, wrapper=wrapper)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Run(process, stdout, stderr)

    def boot(self, *words, **options):
        return self.run("boot", *words, **options)

    def sync(self, *words, **options):
        return self.run("sync", *words, **options)

    def status(self):
        done = self.run("status", "--json")
        return done.status, json.loads(done.output)

    # What is served

    def fetch(self, path="/", timeout=5):
        """Status and body of a page, asked as a visitor would; None where nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Host": f"boutique.test:{self.port}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (ConnectionRefusedError, ConnectionResetError):
            return None
        finally:
            connection.close()

    @property
    def site(self):
        return self.root / "var/www" / self.app

    @property
    def releases(self):
        folder = self.site / "releases"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    @property
    def live(self):
        current = self.site / "current"
        return os.path.basename(os.readlink(current)) if current.is_symlink() else None

    def live_tree(self):
        return tree(self.site / "releases" / self.live)

    @property
    def is_ready(self):
        return (self.root / "run/amorce/ready").exists()

    def everything_said(self):
        """All that a run may have left for others to read, but for the configuration itself and the records of it (0600)."""
        texts = []
        for path in [self.root / "var/log", self.root / "run"]:
            texts += [file.read_text(errors="replace") for file in path.rglob("*") if file.is_file() and not file.is_socket()]
        return "\n".join(texts)

    def logs(self):
        """The last lines of every log, for the message of a failure."""
        files = [path for path in (self.root / "var/log").rglob("*") if path.is_file()]
        return "\n".join(f"== {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-40:]) for path in files)

    def stop(self):
        for name in ["apache2/apache2.pid", "php/php-fpm.pid"]:
            file = self.root / "run" / name
            try:
                pid = int(file.read_text())
            except (OSError, ValueError):
                continue
            try:
                os.kill(pid, signal.SIGTERM)
                for _ in range(200):
                    # One that has ended and that nobody reaps (PID 1 of a container may not) is gone as well.
                    if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                        break
                    time.sleep(0.02)
                else:
                    os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, FileNotFoundError):
                pass


PAGE = re.compile(r"^page (\d+) (\d+)\n$")


class Visitor:
    """Asks for the page again and again; keeps every answer that is not a whole page of one version."""

    def __init__(self, front):
        self.front = front
        self.wrong = []
        self.answers = 0
        self.isServing = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self):
        while not self._end.is_set():
            try:
                answer = self.front.fetch()
            except OSError as error:
                answer = (0, str(error))
            if answer is None:
                # Nobody listens: right before the first release, wrong ever after.
                if self.isServing:
                    self.wrong.append("refused")
            else:
                status, body = answer
                match = PAGE.match(body)
                if status == 200 and match and match[1] == match[2]:
                    self.isServing = True
                    self.answers += 1
                elif self.isServing or status == 200:
                    self.wrong.append(answer)
            time.sleep(0.01)

    def stop(self):
        self._end.set()
        self._thread.join()
