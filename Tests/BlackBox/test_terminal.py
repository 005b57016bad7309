"""What a person sees: the same run on terminals of several kinds."""

import fcntl
import os
import pty
import random
import re
import struct
import subprocess
import termios

import pytest

from scratch_front import binary

ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def on_terminal(front, columns, *words, **environment):
    """Everything that a terminal of so many columns gets, and the exit code. `front`: None for a command without one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        [binary(), words[0], *(["--root", front.root] if front else []), *words[1:]], stdin=theirs, stdout=theirs, stderr=theirs,
        env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment})
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: nobody has the other side open any more.
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    return process.wait(), text.decode()


def rows(text):
    return [ESCAPE.sub("", row) for row in re.split(r"[\r\n]+", text) if row]


@pytest.fixture
def large(front):
    """A front whose backup takes long enough to be drawn several times."""
    folder = front.base / "site/large"
    folder.mkdir()
    noise = random.Random(1)
    for number in range(400):
        (folder / f"file{number}").write_bytes(noise.randbytes(100_000))
    front.backup()
    front.write_settings(delta=None)
    return front


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_live_line_is_longer_than_the_terminal(large, columns):
    status, text = on_terminal(large, columns, "boot")
    assert status == 0, text
    live = [row for row in rows(text) if " %" in row]
    assert live, text
    assert max(len(row) for row in live) < columns


def test_a_terminal_without_colour_or_unicode_gets_neither(large):
    status, text = on_terminal(large, 80, "boot", LANG="C", NO_COLOR="1")
    assert status == 0
    assert text.isascii()
    assert set(ESCAPE.findall(text)) <= {"\x1b[K"}


def test_a_terminal_that_can_nothing_gets_plain_lines(large):
    status, text = on_terminal(large, 80, "boot", TERM="dumb")
    assert status == 0
    assert "\x1b" not in text and "\r\n" in text
    assert any(row.startswith("restore: ") for row in rows(text))


def test_long_lines_break_between_words(front):
    front.template("release/broken.ini", "a = {{nowhere.one}}\nb = {{nowhere.two}}\n")
    status, text = on_terminal(front, 80, "boot", NO_COLOR="1")
    assert status == 65
    for row in rows(text):
        # Only a word that fits on no line, such as a path, makes one longer.
        assert len(row) <= 80 or max(map(len, row.split())) > 80 - 12, row
    # Each problem is told once, with its place.
    assert text.count('unknown name "nowhere.two"') == 1
