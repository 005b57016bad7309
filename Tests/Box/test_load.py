"""The visitors as judges: they see what is wrong, and only that. Without amorce: the site is put in place by hand."""

import time

import pytest

import application
import database
from box import DATABASE_NAME
from load import Load
from programs import run

CONFIGURATION = """<?php
define('DB_NAME', {name});
define('DB_USER', {user});
define('DB_PASSWORD', {password});
define('DB_HOST', {host});
define('DB_CHARSET', 'utf8mb4');
$table_prefix = 'wp_';
if (!defined('ABSPATH')) {{ define('ABSPATH', __DIR__ . '/'); }}
require_once ABSPATH . 'wp-settings.php';
"""


def php(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@pytest.fixture(scope="module")
def front(box):
    front = box.front("by-hand")
    front.use_seed("#cloud-config\n{}\n", "i-by-hand")
    site = front.path("/var/www/html")
    run("rsync", "--archive", f"{box.application.backed_up}/", f"{site}/")
    (site / "index.html").unlink(missing_ok=True)
    front.write("/var/www/html/wp-config.php", CONFIGURATION.format(
        name=php(database.NAME), user=php(database.USER), password=php(database.PASSWORD), host=php(DATABASE_NAME)))
    run("chroot", front.root, "a2enmod", "--quiet", "proxy_fcgi")
    run("chroot", front.root, "a2enconf", "--quiet", "php8.2-fpm")
    front.power_on()
    front.wait_for_system()
    return front


def test_a_site_that_only_serves_loses_nothing(box, front):
    with Load(front, box.visitor) as load:
        pass
    assert load.lost == []
    assert set(load.editions) == {1} and len(load.editions) >= 16


def test_a_file_changed_in_place_is_seen_as_a_mixed_page(box, front):
    """What amorce must never do: requests on their way meet both editions."""
    # PHP looks at a file again only after this time; a front that relied on it would be lucky, not right.
    front.write("/etc/php/8.2/fpm/conf.d/99-test.ini", "opcache.revalidate_freq=0\n")
    front.run("systemctl", "restart", "php8.2-fpm")
    with Load(front, box.visitor) as load:
        for edition in (2, 1) * 4:
            box.application.change(front.path("/var/www/html"), edition)
            time.sleep(0.4)
    assert any("mixed page" in what for what in load.lost)


def test_a_restart_of_the_web_server_is_seen_as_lost_requests(box, front):
    with Load(front, box.visitor) as load:
        front.run("systemctl", "restart", "apache2")
    assert load.lost
