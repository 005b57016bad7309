"""The application: Debian's WordPress with a small theme, as the backup has it and as the orchestrator has it now."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import ami
from programs import BoxError, run

APP = "boutique"
HOST_NAME = "boutique.preprod.acme.internal"
TITLE = "Lamps of the north"
MARKER = ".amorce-site"
PACKAGES = ("wordpress", "wordpress-theme-twentytwentythree", "php-getid3", "libjs-underscore", "libjs-cropper")
RECIPE = "1"
THEME = "wp-content/themes/boutique"

# A page tells the edition of the release at its beginning and, a while later, at its end: a release that changed under a
# running request would show two.
THEME_FILES = {
    "style.css": "/*\nTheme Name: Boutique\nVersion: 1\n*/\n",
    "edition.php": "<?php return {edition};\n",
    "index.php": """<?php
$first = include __DIR__ . '/edition.php';
?><!doctype html>
<html><head><title><?php bloginfo('name'); ?></title><meta name="edition" content="<?php echo $first; ?>"></head>
<body>
<?php while (have_posts()) { the_post(); the_title('<h1>', '</h1>'); the_content(); } ?>
<?php usleep(isset($_GET['slow']) ? 300000 : 0); ?>
<footer>edition <?php echo include __DIR__ . '/edition.php'; ?></footer>
</body></html>
""",
}
RETIRED = f"{THEME}/retired.php"
UPLOAD = "wp-content/uploads/2026/11/lamp.svg"
LAMP = '<svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>\n'


def wordpress():
    """A tree of plain files: Debian's links to what its packages share are replaced by what they lead to."""
    return ami.kept("wordpress", [RECIPE, *PACKAGES], _build)


def _build(folder):
    packages, root = folder.with_name(folder.name + ".packages"), folder.with_name(folder.name + ".root")
    try:
        packages.mkdir()
        run("apt-get", "-o", "APT::Sandbox::User=root", "--quiet", "download", *PACKAGES, cwd=packages, timeout=300)
        for package in sorted(packages.glob("*.deb")):
            run("dpkg", "--extract", package, root)
        _replace_links(root)
        site = root / "usr/share/wordpress"
        # Debian's own configuration finder; wp-config.php is amorce's to render.
        (site / "wp-config.php").unlink()
        themes = root / "var/lib/wordpress/wp-content/themes"
        if themes.is_dir():
            shutil.copytree(themes, site / "wp-content/themes", dirs_exist_ok=True)
        site.rename(folder)
    finally:
        shutil.rmtree(packages, ignore_errors=True)
        shutil.rmtree(root, ignore_errors=True)


def _replace_links(root):
    for place, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(place) / name
            if not path.is_symlink():
                continue
            target = os.readlink(path)
            real = root / target.lstrip("/") if target.startswith("/") else path.parent / target
            path.unlink()
            if real.is_file():
                shutil.copyfile(real, path)
            elif real.is_dir():
                shutil.copytree(real, path)


@dataclass(frozen=True)
class Backup:
    key: str
    path: Path


class Application:
    """Both versions of it, in a folder of the box."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.backed_up = self.folder / "backed-up"
        self.folder.mkdir()
        run("cp", "--archive", wordpress(), self.backed_up)
        self._write(self.backed_up, edition=1)
        (self.backed_up / RETIRED).write_text("<?php // to be removed\n")

    @staticmethod
    def _write(tree, edition):
        theme = tree / THEME
        theme.mkdir(parents=True, exist_ok=True)
        for name, text in THEME_FILES.items():
            (theme / name).write_text(text.replace("{edition}", str(edition)))
        (tree / MARKER).write_text(APP + "\n")
        (tree / "wp-content/uploads/2026/11").mkdir(parents=True, exist_ok=True)

    def backup(self):
        """The archive of last night, named by its UTC stamp."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 8 * 3600))
        path = self.folder / f"{APP}-{stamp}.tar.zst"
        run("tar", "--create", "--use-compress-program=zstd -3", f"--file={path}", "--owner=0", "--group=0",
            f"--directory={self.backed_up}", ".")
        return Backup(f"{APP}/{path.name}", path)

    def publish(self, tree, edition=2):
        """The current version, as the orchestrator has it: one theme file changed, one upload more, one file less."""
        run("rsync", "--archive", "--delete", f"{self.backed_up}/", f"{tree}/")
        self.change(tree, edition)
        (tree / UPLOAD).write_text(LAMP)
        (tree / RETIRED).unlink()

    @staticmethod
    def change(tree, edition):
        """One file, replaced as a deployment does it."""
        path = tree / THEME / "edition.php"
        if not path.is_file():
            raise BoxError(f"{path} is not there")
        path.write_text(THEME_FILES["edition.php"].replace("{edition}", str(edition)))

    @staticmethod
    def edition(tree):
        """Of a tree as `change` left it."""
        return int((tree / THEME / "edition.php").read_text().removeprefix("<?php return ").removesuffix(";\n"))
