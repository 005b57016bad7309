"""Keeps everything the box does to the machine inside this process: its mounts are seen by nobody else and go with it."""

import ctypes
import os
import threading
from contextlib import contextmanager

from programs import BoxError, run

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_is_private = False


def _call(name, *arguments):
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise BoxError(f"{name}: {os.strerror(number)}")


def private_mounts():
    """From here on this process, and what it starts, has a mount namespace of its own. Overlays and network namespaces
    that are kept by a mount therefore vanish with the process, even when it is killed. For the main thread."""
    global _is_private
    if _is_private:
        return
    if os.geteuid() != 0:
        raise BoxError("the box mounts, makes namespaces and boots systemd: it must run as root")
    if threading.current_thread() is not threading.main_thread():
        raise BoxError("the mount namespace must be made by the main thread")
    _call("unshare", CLONE_NEWNS)
    run("mount", "--make-rprivate", "/")
    # nspawn leaves folders there for every machine it has run.
    run("mkdir", "--parents", "/run/systemd/nspawn")
    run("mount", "-t", "tmpfs", "box", "/run/systemd/nspawn")
    _is_private = True


@contextmanager
def inside_network(path):
    """The calling thread is in that network namespace; sockets made there stay in it."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", other, CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", own, CLONE_NEWNET)
    finally:
        os.close(own)
        os.close(other)


class ControlGroup:
    """A control group of its own for one instance, in every hierarchy systemd works with. Two systemds in one group would
    take each other's services for leftovers and kill them."""

    def __init__(self, name):
        self.folders = [point + "/" + name for point in self._hierarchies()]
        if not self.folders:
            raise BoxError("no control group hierarchy for systemd is mounted")
        for folder in self.folders:
            os.mkdir(folder)

    @staticmethod
    def _hierarchies():
        with open("/proc/self/mountinfo") as table:
            for line in table:
                before, after = line.rstrip("\n").split(" - ")
                kind, _, options = after.split(" ", 2)
                if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
                    yield before.split(" ")[4]

    def command(self, argv):
        """`argv`, started as a member of the group."""
        script = 'groups=$1; shift; for g in $groups; do echo $$ > "$g/cgroup.procs"; done; exec "$@"'
        return ["sh", "-c", script, "box", " ".join(self.folders)] + list(argv)

    def members(self):
        found = set()
        for folder in self.folders:
            for place, _, _ in os.walk(folder):
                with open(place + "/cgroup.procs") as list_of_processes:
                    found.update(int(line) for line in list_of_processes if line.strip() != "0")
        return found

    def remove(self):
        for folder in self.folders:
            for place, _, _ in os.walk(folder, topdown=False):
                os.rmdir(place)
