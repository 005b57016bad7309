"""`amorce backup`, `backups` and `verify` as one meets them: on a folder, with nothing else installed. What is left out, what is
refused, what is removed, and what is said about it."""

import json
import os
import random
import re
import shutil
import subprocess
import time

import pytest

from backup_trees import amorce, backups_in, differences, make_tree, unpacked
from scratch_front import binary, tree
from test_terminal import on_terminal, rows

MARK = "MADE-UP-SECRET"


@pytest.fixture
def store(base):
    (base / "store").mkdir()
    return base / "store"


@pytest.fixture
def site(base):
    return make_tree(base / "site", large=9_000_000)


def backup(site, store, *words, app="boutique", **options):
    done = amorce("backup", "--from", site, "--to", f"file://{store}/", "--json", *(["--app", app] if app else []), *words, **options)
    assert done.status == 0, done
    return json.loads(done.output)


def by_hand(site, place, folder):
    """What tar makes other than it was. Its times are whole seconds; the folder itself is nobody's member."""
    return [line for line in differences(site, unpacked(place, folder), window="0") if not line.endswith(" ./")]


# The newcomer's way

def test_there_and_back(site, store, base):
    made = backup(site, store)
    objects, manifests, rest = backups_in(store)
    assert objects == [made["key"]] and manifests == [made["key"] + ".manifest"] and rest == []
    assert made["copied"] == 0 and made["size"] == (store / made["key"]).stat().st_size
    # A backup holds what the application keeps secret.
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in store.iterdir())

    listed = json.loads(amorce("backups", f"file://{store}/", "--json").output)
    assert [(each["key"], each["state"], each["app"], each["environment"], each["files"], each["bytes"]) for each in listed] == [
        (made["key"], "complete", "boutique", "production", made["files"], made["bytes"])]
    table = amorce("backups", store)
    assert table.status == 0 and table.output.count("\n") == 1 and table.messages == ""
    assert made["key"] in table.output and "complete" in table.output and "boutique of production" in table.output

    for address in [f"file://{store}/", f"{store}/", f"{store}/{made['key']}"]:
        done = amorce("verify", address, "--json")
        assert done.status == 0, done
        verified = json.loads(done.output)
        assert {name: verified[name] for name in ("key", "files", "bytes", "directories", "links")} == {
            **{name: made[name] for name in ("files", "bytes", "directories", "links")}, "key": verified["key"]}

    done = amorce("restore", "--from", f"file://{store}/", "--to", base / "out", "--json")
    assert done.status == 0, done
    assert differences(site, base / "out") == []
    assert json.loads(done.output)["files"] == made["files"]
    assert sorted(path.name for path in base.iterdir()) == ["out", "site", "store"]

    assert by_hand(site, store / made["key"], base / "by-hand") == []


@pytest.mark.parametrize("threads", ["1", "5"])
def test_any_number_of_threads(site, store, base, threads):
    backup(site, store, "--threads", threads)
    done = amorce("restore", "--from", f"{store}/", "--to", base / "out", "--threads", threads, "--memory", "4MiB")
    assert done.status == 0, done
    assert differences(site, base / "out") == []


def test_the_next_one_takes_over_what_has_not_changed(site, store, base):
    first = backup(site, store)
    time.sleep(1.1)
    (site / "lib/deep/er/file0003").write_bytes(b"changed")
    (site / "lib/deep/er/file0004").unlink()
    (site / "new").write_text("new")
    second = backup(site, store)
    assert second["copiedFrom"] == first["key"] and second["copied"] > second["size"] / 2
    time.sleep(1.1)
    full = backup(site, store, "--full")
    assert full["copied"] == 0 and "copiedFrom" not in full
    # Each is whole by itself.
    for made in (second, full):
        for other in store.iterdir():
            if not other.name.startswith(made["key"]):
                other.rename(base / other.name)
        assert amorce("verify", f"{store}/").status == 0
        assert amorce("restore", "--from", f"{store}/", "--to", base / "out").status == 0
        assert differences(site, base / "out") == []
        assert by_hand(site, store / made["key"], base / "by-hand") == []
        for each in ("out", "by-hand"):
            shutil.rmtree(base / each)
        for other in base.glob("*.zst*"):
            other.rename(store / other.name)


def test_another_application_takes_nothing_over(site, store):
    backup(site, store)
    time.sleep(1.1)
    assert backup(site, store, app="other")["copied"] == 0


# What is backed up

def test_what_is_left_out(site, store, base):
    (site / ".amorceignore").write_text("# caches\n*.log\n/cache/\n!keep.log\n")
    for name in ["x.log", "lib/y.log", "lib/keep.log", "cache/a", "lib/cache/b", "tmp/c"]:
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text("x")
    os.mkfifo(site / "pipe")
    (site / "outside").symlink_to("/etc/passwd")
    made = amorce("backup", "--from", site, "--to", store, "--app", "boutique", "--json", "--exclude", "tmp", "--exclude", "/odd/a b")
    assert made.status == 0, made
    assert "pipe" in made.messages and "outside" in made.messages
    made = json.loads(made.output)
    assert made["special"] == 1 and made["specialNames"] == ["pipe: a FIFO"] and made["leadingOut"] == ["outside"] and made["excluded"] == 5
    assert amorce("restore", "--from", f"{store}/", "--to", base / "out").status == 0
    gone = {line.split(" ", 1)[1] for line in differences(site, base / "out") if line[0] in "><c" and "++++" in line}
    assert gone == {"x.log", "lib/y.log", "cache/", "cache/a", "tmp/", "tmp/c", "pipe", "outside -> /etc/passwd", "odd/a b"}


def test_links_that_lead_anywhere(store, base):
    """Whatever a tree's symlinks are, what is backed up can be restored, and what is left out is told."""
    for seed in range(8):
        chance = random.Random(seed)
        site = base / f"site{seed}"
        for folder in ("a/b", "c"):
            (site / folder).mkdir(parents=True)
        (site / "a/f").write_text("x")
        names = [f"l{number}" for number in range(8)]
        for _ in range(12):
            place = site / chance.choice(["", "a", "a/b", "c"]) / chance.choice(names)
            if not os.path.lexists(place):
                place.symlink_to("/".join(chance.choices(["..", ".", "a", "b", "c", "f", *names], k=chance.randrange(1, 6))))
        made = backup(site, base / "store", "--full", app=f"app{seed}")
        done = amorce("restore", "--from", store / made["key"], "--to", base / f"out{seed}")
        assert done.status == 0, done
        links = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_symlink()}
        came = {str(path.relative_to(base / f"out{seed}")) for path in (base / f"out{seed}").rglob("*") if path.is_symlink()}
        assert came == links - set(made["leadingOut"])
        for name in ("", ".manifest"):
            (store / (made["key"] + name)).unlink()


def test_which_application_it_is(site, store):
    done = amorce("backup", "--from", site, "--to", store)
    assert done.status == 64 and "--app" in done.messages and ".amorce-site" in done.messages, done
    assert list(store.iterdir()) == []
    for text in ["", "Not A Name\n", "a\0b", "x" * 100]:
        (site / ".amorce-site").write_text(text)
        assert amorce("backup", "--from", site, "--to", store).status == 64
    (site / ".amorce-site").write_text("boutique\n")
    made = backup(site, store, "--environment", "rehearsal-2", app=None)
    listed = json.loads(amorce("backups", store, "--json").output)
    assert [(each["app"], each["environment"]) for each in listed] == [("boutique", "rehearsal-2")]
    # The marker is the orchestrator's, and no part of the site.
    assert b".amorce-site" not in subprocess.run(["tar", "-tf", store / made["key"]], capture_output=True, check=True).stdout


@pytest.mark.parametrize("words", [
    [], ["--to"], ["--app", "Boutique"], ["--app", ""], ["--environment", "a_b"], ["--threads", "0"], ["--threads", "257"],
    ["--connections", "0"], ["--memory", "1MiB"], ["--unknown"], ["word"], ["--from", "current"]])
def test_wrong_flags(site, store, base, words):
    to = ["--to", store] if words and words[0] != "--to" else []
    source = [] if "current" in words else ["--from", site]
    app = [] if "--app" in words else ["--app", "boutique"]
    done = amorce("backup", "--root", base / "none", *source, *app, *to, *words)
    assert done.status == 64, done
    assert list(store.iterdir()) == []


def test_wrong_flags_of_the_others(store):
    for words in [["backups"], ["backups", store, "--dry-run"], ["backups", store, "--prune", "keep-daily=0"],
                  ["backups", store, "--prune", ""], ["backups", store, "--prune", "keep-some=3"],
                  ["backups", store, "--prune", "keep-last=1,keep-last=2"], ["verify"], ["verify", "ftp://host/x.tar.zst"],
                  ["backups", "s3://x/"], ["backups", store, store]]:
        done = amorce(*words)
        assert done.status == 64, (words, done)


def test_nothing_to_back_up(store, base):
    (base / "empty/folders/only").mkdir(parents=True)
    (base / "empty/link").symlink_to("folders")
    for words in [[], ["--exclude", "x"]]:
        done = amorce("backup", "--from", base / "empty", "--to", store, "--app", "boutique", *words)
        assert done.status == 65 and "no file" in done.messages, done
        (base / "empty/x").write_text("x")
    for source in [base / "absent", base / "empty/x"]:
        done = amorce("backup", "--from", source, "--to", store, "--app", "boutique")
        assert done.status == 1, done
    assert list(store.iterdir()) == []


def test_a_place_that_is_not_there(site, base):
    """It may be that its disk is not mounted: made by itself, it would fill the one below."""
    done = amorce("backup", "--from", site, "--to", base / "store", "--app", "boutique")
    assert done.status == 1 and "mounted" in done.messages, done
    assert not (base / "store").exists()
    assert amorce("backups", base / "store").status == 1
    done = amorce("backup", "--from", site, "--to", "http://127.0.0.1:9/x/", "--app", "boutique")
    assert done.status == 78 and "only be read" in done.messages, done


def test_a_place_inside_of_what_is_backed_up(site):
    """Each backup would hold those before it."""
    (site / "var/backups").mkdir(parents=True)
    for place, more in ((site / "var/backups", "--exclude /var/backups/"), (site, "elsewhere")):
        done = amorce("backup", "--from", site, "--to", place, "--app", "boutique")
        assert done.status == 64 and "lies in what is backed up" in done.messages and more in done.messages, done
    for pattern in ("/var/backups/", "var", "backups"):
        made = backup(site, site / "var/backups", "--exclude", pattern, "--full")
        assert b"backups" not in subprocess.run(["tar", "-tf", site / "var/backups" / made["key"]], capture_output=True, check=True).stdout
        time.sleep(1.1)


@pytest.mark.parametrize("call, number", [("pwrite64", 1), ("fsync", 1), ("renameat2", 1), ("fsync", 3), ("renameat2", 2)])
def test_the_disk_of_the_store_fails(site, store, call, number):
    """Row 63. Without its manifest, an object passes for nothing."""
    done = amorce("backup", "--from", site, "--to", store, "--app", "boutique", wrapper=[
        "strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={number}"])
    assert done.status == 1 and "Input/output error" in done.messages and "failed at backup" in done.messages, done
    objects, manifests, rest = backups_in(store)
    assert manifests == rest == [] and len(objects) == (number > 1)
    assert [each["state"] for each in json.loads(amorce("backups", store, "--json").output)] == ["incomplete"] * len(objects)
    time.sleep(1.1)
    assert backup(site, store)["copied"] == 0
    assert amorce("verify", f"{store}/").status == 0


def test_the_disk_of_the_site_fails(site, store):
    done = amorce("backup", "--from", site, "--to", store, "--app", "boutique", wrapper=[
        "strace", "-f", "-qq", "-o", "/dev/null", "-P", site / "large", "-e", "trace=read,pread64", "-e", "inject=read,pread64:error=EIO"])
    assert done.status == 1 and "large: Input/output error" in done.messages, done
    assert backups_in(store) == ([], [], [])


@pytest.mark.parametrize("call, number", [("getdents64", 1), ("getdents64", 3), ("readlinkat", 1)])
def test_a_directory_that_cannot_be_read_to_its_end(site, store, call, number):
    """A part of the names must not pass for all of them."""
    folder = site / "many"
    folder.mkdir()
    for count in range(4000):
        (folder / f"file-with-a-long-name-{count}").touch()
    (folder / "link").symlink_to("file-with-a-long-name-1")
    done = amorce("backup", "--from", site, "--to", store, "--app", "boutique", wrapper=[
        "strace", "-f", "-qq", "-o", "/dev/null", "-P", folder, "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={number}+"])
    assert done.status == 1 and "Input/output error" in done.messages and f"{site}/many" in done.messages, done
    assert backups_in(store) == ([], [], [])


def test_a_place_that_cannot_be_listed_to_its_end(site, store):
    """A manifest that is not seen would have its backup pruned."""
    made = backup(site, store)
    for name in (made["key"], made["key"] + ".manifest"):
        os.utime(store / name, (1_600_000_000, 1_600_000_000))
    for count in range(2000):
        (store / f"{count}-{'note' * 20}").touch()
    before = sorted(path.name for path in store.iterdir())
    done = amorce("backups", store, "--prune", "keep-last=1", wrapper=[
        "strace", "-f", "-qq", "-o", "/dev/null", "-P", store, "-e", "trace=getdents64", "-e", "inject=getdents64:error=EIO:when=2+"])
    assert done.status == 1 and "Input/output error" in done.messages, done
    assert sorted(path.name for path in store.iterdir()) == before


@pytest.mark.parametrize("name", [".amorceignore", ".amorce-site"])
def test_a_fifo_where_a_file_belongs(site, store, name):
    os.mkfifo(site / name)
    words = ["--app", "boutique"] if name == ".amorceignore" else []
    done = amorce("backup", "--from", site, "--to", store, *words)
    assert done.status != 0 and f"{site}/{name} is no regular file" in done.messages, done
    assert backups_in(store) == ([], [], [])


def test_the_live_release_without_what_amorce_renders(front, base):
    """Rows of law 3: this environment's secrets stay where they are."""
    (base / "store").mkdir()
    assert front.run("backup", "--to", str(base / "store")).status == 64
    assert front.boot().status == 0
    rendered = front.site / "current/environment.ini"
    assert MARK in rendered.read_text()
    done = front.run("backup", "--from", "current", "--to", str(base / "store"), "--environment", "preprod", "--json")
    assert done.status == 0, done
    place = base / "store" / json.loads(done.output)["key"]
    out = unpacked(place, base / "by-hand")
    assert not (out / "environment.ini").exists() and not (out / ".amorce-site").exists()
    assert [path for path in out.rglob("*") if path.is_file() and MARK.encode() in path.read_bytes()] == []
    for text in [done.output, done.messages, subprocess.run(["zstd", "-dc", f"{place}.manifest"], capture_output=True).stdout.decode()]:
        assert MARK not in text and "environment.ini" not in text
    expected = tree(front.orchestrator)
    expected.pop(".amorce-site")
    assert tree(out) == expected
    listed = json.loads(front.run("backups", str(base / "store"), "--json").output)
    assert (listed[0]["app"], listed[0]["environment"]) == ("boutique", "preprod")
    # And it is one that a front can be made of.
    front.write_settings(backup={"from": f"file://{base}/store/"}, delta=None)
    shutil.rmtree(front.site)
    shutil.rmtree(front.root / "var/lib/amorce")
    assert front.boot().status == 0
    assert front.fetch() == (200, "page 1 1\n")
    assert MARK in rendered.read_text()


def test_files_that_change_and_go_while_they_are_read(base, store):
    """Row 49. The backup is made, is whole by itself, and says which files may be of two versions."""
    site = make_tree(base / "site", files=40, size=300_000)
    with subprocess.Popen(["python3", "-S", "-c", f"""
import os, random, itertools
place = {str(site / 'lib/deep/er')!r}
noise = random.Random(5)
print(flush=True)
for number in itertools.count():
    path = f"{{place}}/file{{number % 20:04}}"
    with open(path, "ab" if number % 3 else "wb") as file:
        file.write(noise.randbytes(noise.randrange(200_000)))
    with open(f"{{place}}/comes{{number % 50}}", "wb") as file:
        file.write(b"x")
    for other in (number + 25) % 50, (number + 26) % 50:
        try: os.unlink(f"{{place}}/comes{{other}}")
        except FileNotFoundError: pass
"""], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        try:
            for _ in range(3):
                made = backup(site, store)
                assert amorce("verify", f"{store}/{made['key']}").status == 0
                subprocess.run(f"zstd -dcq '{store}/{made['key']}' | tar -t >/dev/null", shell=True, check=True)
                done = amorce("restore", "--from", f"{store}/{made['key']}", "--to", base / "out")
                assert done.status == 0, done
                for number in range(20, 40):
                    name = f"lib/deep/er/file{number:04}"
                    assert (base / "out" / name).read_bytes() == (site / name).read_bytes()
                shutil.rmtree(base / "out")
                time.sleep(1)
        finally:
            writer.kill()


# Pruning

DAY = 86400


def shelf(store, site, ages, app="boutique", environment="production"):
    """A backup for each age in days: one that was made is given other names, and its manifest another time."""
    made = backup(site, store, "--environment", environment, app=app)
    now = int(time.time())
    manifest = subprocess.run(["zstd", "-dcq", f"{store}/{made['key']}.manifest"], capture_output=True, check=True).stdout
    names = []
    for days in ages:
        moment = now - int(days * DAY)
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment)) + ".framed.tar.zst"
        shutil.copy2(store / made["key"], store / name)
        written = re.sub(rb"^time\t.*$", b"time\t" + name[:16].encode(), manifest, count=1, flags=re.M)
        assert written != manifest
        packed = subprocess.run(["zstd", "-q", "-c"], input=written, capture_output=True, check=True).stdout
        (store / (name + ".manifest")).write_bytes(packed)
        names.append(name)
    for suffix in ("", ".manifest"):
        (store / (made["key"] + suffix)).unlink()
    return names


def test_pruning_by_a_policy(store, base):
    site = make_tree(base / "site", files=3)
    names = shelf(store, site, [0.01, 1, 2, 3, 10, 20, 40, 400])
    others = shelf(store, site, [5, 6], environment="preprod")
    # What amorce did not make, it never removes, whatever its name or age.
    foreign = ["20200101T030000Z.tar.zst", "20200101T030000Z.tar.zst.sha256", "notes.txt", "x.framed.tar.zst", "sub"]
    for name in foreign[:3]:
        (store / name).write_bytes(b"x")
        os.utime(store / name, (1, 1))
    (store / "sub").mkdir()
    shutil.copy2(store / names[-1], store / "sub" / names[-1])
    (store / "x.framed.tar.zst").write_bytes(b"a name without a time, still new")
    before = sorted(path.name for path in store.iterdir())
    words = ["backups", f"file://{store}/", "--prune", "keep-daily=2,keep-monthly=2"]
    dry = amorce(*words, "--dry-run")
    assert dry.status == 0 and sorted(path.name for path in store.iterdir()) == before, dry
    planned = json.loads(amorce(*words, "--dry-run", "--json").output)
    assert planned["isDryRun"] and sorted(path.name for path in store.iterdir()) == before
    done = amorce(*words)
    assert done.status == 0, done
    left = sorted(path.name for path in store.iterdir())
    gone = sorted(each["key"] for each in planned["removed"])
    assert left == sorted(set(before) - set(gone) - {name + ".manifest" for name in gone})
    # Two days, two months, of each environment; the newest of all.
    assert names[0] in left and names[1] in left and others[0] in left and others[1] in left
    assert {names[2], names[3], names[7]} <= set(gone)
    assert set(foreign) <= set(left) and (store / "sub" / names[-1]).exists()
    assert dry.output.count("would go") == len(gone) and done.output.count("removed") == len(gone)
    assert [line.split() for line in dry.output.replace("would go", "removed").splitlines()] == [
        line.split() for line in done.output.splitlines()]
    # Nothing is left to remove, and the newest stays whatever is asked.
    again = json.loads(amorce(*words, "--json").output)
    assert again["removed"] == []
    assert amorce("backups", store, "--prune", "keep-last=1").status == 0
    kept = backups_in(store)[0]
    assert names[0] in kept and others[0] in kept and len([name for name in kept if name[0] == "2"]) == 2


def test_killed_while_pruning(store, base):
    """The manifest goes first: what is half removed is none, and goes after two days."""
    site = make_tree(base / "site", files=3)
    names = shelf(store, site, [0.01, 5, 6])
    prune = ["backups", f"file://{store}/", "--prune", "keep-last=1"]
    # Before the first removal; then twice between a manifest's and its object's.
    for number, incomplete in ((1, 0), (2, 1), (2, 2)):
        done = amorce(*prune, wrapper=["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=unlinkat,unlink",
                                       "-e", f"inject=unlinkat,unlink:signal=KILL:when={number}"])
        assert done.status in (-9, 137), done
        listed = {each["key"]: each["state"] for each in json.loads(amorce("backups", store, "--json").output)}
        objects, manifests, rest = backups_in(store)
        assert len(objects) == 3 and len(manifests) == 3 - incomplete and rest == []
        assert listed == {name: "complete" if name + ".manifest" in manifests else "incomplete" for name in objects}
        assert listed[names[0]] == "complete"
    # A backup that is being made right now looks like this too, so it stays for two days.
    left = names[1:]
    assert amorce(*prune).status == 0
    assert backups_in(store)[0] == objects
    for name in left:
        os.utime(store / name, (time.time() - 3 * DAY,) * 2)
    assert amorce(*prune).status == 0
    assert backups_in(store) == ([names[0]], [names[0] + ".manifest"], [])
    assert amorce("verify", f"{store}/").status == 0


@pytest.mark.parametrize("suffix", ["", ".manifest"])
def test_pruned_while_it_is_copied_from(store, base, suffix):
    """The source goes between being chosen and being copied: the backup is made all the same, and is whole."""
    site = make_tree(base / "site", large=9_000_000)
    name, = shelf(store, site, [3])
    # Each opening of the earlier object waits a second: the copying begins after it is gone.
    with subprocess.Popen(
            ["strace", "-f", "-qq", "-o", base / "calls", "-P", name, "-e", "trace=openat2", "-e", "inject=openat2:delay_enter=1000000",
             binary(), "backup", "--from", site, "--to", f"{store}/", "--app", "boutique", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not any(path.name.endswith(".part") for path in store.iterdir()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        (store / (name + ".manifest")).unlink()
        if not suffix:
            (store / name).unlink()
        output, messages = process.communicate(timeout=100)
    assert process.returncode == 0, messages
    made = json.loads(output)
    assert ("all is sent anew" in messages) == (not suffix) and (made["copied"] == 0) == (not suffix), (messages, made)
    assert amorce("verify", f"{store}/{made['key']}").status == 0
    assert amorce("restore", "--from", f"{store}/{made['key']}", "--to", base / "out").status == 0
    assert differences(site, base / "out") == []
    assert backups_in(store)[2] == []


# A verification that finds something

def test_damage_is_found(site, store, base):
    made = backup(site, store)
    place, manifest = store / made["key"], store / (made["key"] + ".manifest")
    whole, told = place.read_bytes(), manifest.read_bytes()
    (base / "other").mkdir()
    other = backup(make_tree(base / "site2", seed=2), base / "other")
    bad = [
        ("flipped", whole[:5_000_000] + bytes([whole[5_000_000] ^ 1]) + whole[5_000_001:], told),
        ("flipped at the end", whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], told),
        ("cut", whole[:-1], told), ("followed", whole + b"x", told), ("empty", b"", told),
        ("frame missing", whole[:-60], told),
        ("another object's manifest", whole, (base / "other" / (other["key"] + ".manifest")).read_bytes()),
        ("manifest cut", whole, told[:-20]), ("manifest flipped", whole, told[:-20] + bytes([told[-20] ^ 1]) + told[-19:]),
        ("manifest empty", whole, b""), ("manifest of text", whole, b"hello\n"), ("no manifest", whole, None)]
    for what, data, text in bad:
        place.write_bytes(data)
        manifest.unlink(missing_ok=True)
        if text is not None:
            manifest.write_bytes(text)
        for words in (["verify", place], ["restore", "--from", place, "--to", base / "out"]):
            done = amorce(*words)
            if what == "flipped at the end" and words[0] == "restore":
                # Links and folders are restored by the manifest; those of the tar are for other programs.
                assert done.status == 0 and differences(site, base / "out") == [], done
                shutil.rmtree(base / "out")
                continue
            assert done.status == 65 and made["key"] in done.messages, (what, words, done)
            assert not (base / "out").exists() and [path.name for path in base.iterdir() if "out" in path.name] == [], what
    place.write_bytes(whole)
    manifest.write_bytes(told)
    assert amorce("verify", place).status == 0


def test_damaged_manifests_among_others(site, store):
    keys = []
    for _ in range(4):
        keys.append(backup(site, store)["key"])
        time.sleep(1.1)
    (store / (keys[0] + ".manifest")).write_bytes(b"no manifest")
    text = subprocess.run(["zstd", "-dcq", store / (keys[1] + ".manifest")], capture_output=True, check=True).stdout
    later = text.replace(b"amorce-backup\t1\n", b"amorce-backup\t2\n")
    (store / (keys[1] + ".manifest")).write_bytes(subprocess.run(["zstd", "-qc"], input=later, capture_output=True, check=True).stdout)
    listed = json.loads(amorce("backups", store, "--json").output)
    assert [(each["key"], each["state"]) for each in listed] == [
        (keys[3], "complete"), (keys[2], "complete"), (keys[1], "damaged"), (keys[0], "damaged")]
    assert "format 2" in listed[2]["note"] and "never removed" in listed[3]["note"] and "note" not in listed[0]
    done = amorce("backups", store, "--prune", "keep-last=1")
    assert done.status == 0, done
    lines = done.output.splitlines()
    assert [line.split()[0] for line in lines] == ["kept", "removed", "kept", "kept"]
    assert "damaged" in lines[2] and "format 2" in lines[2] and "never removed by --prune" in lines[3]
    assert backups_in(store)[0] == sorted([keys[0], keys[1], keys[3]])


def test_one_of_the_future_has_nothing_pruned(site, store):
    key = backup(site, store)["key"]
    text = subprocess.run(["zstd", "-dcq", store / (key + ".manifest")], capture_output=True, check=True).stdout
    ahead = re.sub(rb"\ntime\t[^\n]*", b"\ntime\t20990101T000000Z", text)
    (store / key).rename(store / "20990101T000000Z.framed.tar.zst")
    (store / (key + ".manifest")).unlink()
    (store / "20990101T000000Z.framed.tar.zst.manifest").write_bytes(
        subprocess.run(["zstd", "-qc"], input=ahead, capture_output=True, check=True).stdout)
    time.sleep(1.1)
    key = backup(site, store)["key"]
    done = amorce("backups", store, "--prune", "keep-last=1")
    assert done.status == 0 and [line.split()[0] for line in done.output.splitlines()] == ["kept", "kept"], done
    assert "from the future" in done.output.splitlines()[0] and "from the future" not in done.output.splitlines()[1]
    assert backups_in(store)[0] == sorted([key, "20990101T000000Z.framed.tar.zst"])


def test_what_is_for_other_archives(site, store, base):
    key = backup(site, store)["key"]
    (store / (key + ".sha256")).write_text("0" * 64 + "\n")
    done = amorce("restore", "--from", store / key, "--to", base / "out", "--strip-components", "1")
    assert done.status != 0 and "strip-components" in done.messages and not (base / "out").exists(), done
    done = amorce("restore", "--from", store / key, "--to", base / "out", "-v")
    assert done.status == 0 and "checked against its manifest" in done.messages and ".sha256" not in done.messages, done
    assert amorce("verify", store / key).status == 0


# What is said

def test_quiet_json_and_logs(site, store):
    to = ["backup", "--from", site, "--to", store, "--app", "boutique"]
    done = amorce(*to, "--quiet")
    assert done.status == 0 and done.output == done.messages == "", done
    done = amorce(*to, "--full", "--log-format", "json")
    assert done.status in (0, 1) and done.output == ""
    lines = [json.loads(line) for line in done.messages.splitlines()]
    assert lines
    time.sleep(1.1)
    done = amorce(*to, "--json", "--full")
    assert done.status == 0 and json.loads(done.output)["files"] > 0
    assert done.messages.count("\n") == 1 and done.messages.startswith("backup: "), done
    done = amorce("verify", f"{store}/", "-q")
    assert done.status == 0 and done.output == done.messages == "", done


def test_the_second_of_one_second(site, store):
    """Keys are immutable: of two in one second one wins, and the other says what to do."""
    for _ in range(10):
        with subprocess.Popen([binary(), "backup", "--from", site, "--to", f"{store}/", "--app", "boutique", "--full"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as first:
            second = amorce("backup", "--from", site, "--to", store, "--app", "boutique", "--full")
            messages = first.communicate()[1]
        if {first.returncode, second.status} == {0, 1}:
            break
        time.sleep(1.1)
    else:
        pytest.fail("never in one second")
    said = messages if first.returncode else second.messages
    assert "there already" in said and "run it again" in said
    objects, manifests, rest = backups_in(store)
    assert len(objects) == len(manifests) and rest == []
    assert amorce("verify", f"{store}/").status == 0


@pytest.mark.parametrize("columns", [60, 100])
def test_on_a_terminal(base, store, columns):
    site = make_tree(base / "site", large=120_000_000)
    status, text = on_terminal(None, columns, "backup", "--from", site, "--to", store, "--app", "boutique", "--threads", "1")
    assert status == 0, text
    live = [row for row in rows(text) if "backup" in row]
    assert live and max(len(row) for row in live[:-1]) < columns, live
