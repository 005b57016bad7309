"""Programs of the host: run to their end, or kept running for as long as the box stands."""

import os
import signal
import subprocess
import time
from pathlib import Path


class BoxError(Exception):
    """Something the box needs did not work; the message says what was run and what it said."""


def run(*argv, timeout=120, input=None, cwd=None, env=None):
    """Runs a program to its end and returns its output; anything but exit status 0 is an error."""
    argv = [str(word) for word in argv]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout, input=input, cwd=cwd, env=env,
                              text=not isinstance(input, bytes))
    except FileNotFoundError:
        raise BoxError(f"{argv[0]} is not installed (see Tests/Box/README.md)") from None
    except subprocess.TimeoutExpired:
        raise BoxError(f"{' '.join(argv)}: not done after {timeout} s") from None
    if done.returncode != 0:
        raise BoxError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def wait_until(condition, timeout, what, pause=0.1):
    """Returns the first true answer of `condition`. A condition that raises is one that is not true yet."""
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            answer = condition()
            if answer:
                return answer
            last = answer
        except (OSError, BoxError, subprocess.SubprocessError, ValueError) as error:
            last = error
        if time.monotonic() > end:
            raise BoxError(f"{what}: not within {timeout} s; last answer: {last!r}")
        time.sleep(pause)


class Daemon:
    """A program in a session of its own that runs until it is stopped, or until this process is gone, however it went.

    To be started by the main thread: the kernel ties the death signal to the thread that forked.
    """

    def __init__(self, name, argv, log, env=None):
        self.name = name
        self.log = Path(log)
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--"] + [str(word) for word in argv],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True)

    @property
    def is_running(self):
        return self.process.poll() is None

    def must_run(self):
        if not self.is_running:
            raise BoxError(f"{self.name} ended with {self.process.returncode}:\n{self.log.read_text(errors='replace')[-4000:]}")
        return True

    def stop(self, first=signal.SIGTERM, timeout=10):
        if self.is_running:
            os.killpg(self.process.pid, first)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(timeout)
