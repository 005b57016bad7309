"""Packs a tree into the manifest and the data file that limit.c reads."""

import os
import shutil
import stat
from pathlib import Path


def pack(source: Path, manifest: Path, data: Path) -> None:
    base = os.fsencode(source)
    folders: list[bytes] = []
    files: list[bytes] = []
    links: list[bytes] = []
    first_names: dict[int, bytes] = {}
    with open(data, "wb") as packed:
        for folder, names, leaves in os.walk(base):
            folders.append(record("d", os.lstat(folder), os.path.relpath(folder, base)))
            for name in sorted(names + leaves):
                full = os.path.join(folder, name)
                path = os.path.relpath(full, base)
                status = os.lstat(full)
                if stat.S_ISLNK(status.st_mode):
                    links.append(record("l", status, path, target=os.readlink(full)))
                elif stat.S_ISREG(status.st_mode):
                    first = first_names.setdefault(status.st_ino, path)
                    if first != path:
                        links.append(record("h", status, path, target=first))
                        continue
                    files.append(record("f", status, path, offset=packed.tell(), size=status.st_size))
                    with open(full, "rb") as content:
                        shutil.copyfileobj(content, packed, 1 << 20)
    manifest.write_bytes(b"".join(folders + files + links))


def record(
    kind: str, status: os.stat_result, path: bytes, offset: int = 0, size: int = 0, target: bytes = b""
) -> bytes:
    numbers = f"{kind}\0{stat.S_IMODE(status.st_mode):o}\0{int(status.st_mtime)}\0{offset}\0{size}\0"
    return numbers.encode() + path + b"\0" + target + b"\0"
