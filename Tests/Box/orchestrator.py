"""The orchestrator: the current version of the application behind an rsync daemon, and the central rsyslog."""

import json

import application
import database
from application import APP
from instance import Instance
from programs import wait_until

USER = "front"
PASSWORD = "MADE-UP-SECRET-of-rsync"
TREE = f"/srv/{APP}"
LOG = "/var/log/fronts.log"

RSYNCD = f"""\
uid = root
gid = root
use chroot = yes
[{APP}]
    path = {TREE}
    read only = yes
    auth users = {USER}
    secrets file = /etc/rsyncd.secrets
"""

# What hosts send is kept apart from the orchestrator's own.
RSYSLOG = f"""\
module(load="imtcp")
module(load="imudp")
ruleset(name="fronts") {{ action(type="omfile" file="{LOG}") }}
input(type="imtcp" port="514" ruleset="fronts")
input(type="imudp" port="514" ruleset="fronts")
"""

# WordPress's own installation, without a configuration file in the tree.
INSTALL = r"""<?php
$values = json_decode(stream_get_contents(STDIN), true);
$_SERVER['HTTP_HOST'] = $values['host_name'];
$_SERVER['REQUEST_URI'] = '/';
define('WP_INSTALLING', true);
define('WP_SITEURL', 'http://' . $values['host_name']);
define('ABSPATH', $values['tree'] . '/');
define('DB_NAME', $values['name']);
define('DB_USER', $values['user']);
define('DB_PASSWORD', $values['password']);
define('DB_HOST', $values['host']);
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
define('WP_HTTP_BLOCK_EXTERNAL', true);
$table_prefix = 'wp_';
function wp_new_blog_notification() {}
require ABSPATH . 'wp-settings.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';
wp_install($values['title'], 'admin', 'admin@acme.internal', true, '', $values['admin_password']);
switch_theme('boutique');
echo get_option('blogname');
"""


class Orchestrator(Instance):
    def __init__(self, folder, host, layers, names):
        super().__init__(folder, host, layers, names)
        self.write("/etc/cloud/cloud-init.disabled", "")
        self.write("/etc/rsyncd.conf", RSYNCD)
        self.write("/etc/rsyncd.secrets", f"{USER}:{PASSWORD}\n", mode=0o600)
        self.write("/etc/rsyslog.d/fronts.conf", RSYSLOG)
        self.enable("rsync.service")
        # It serves no pages.
        for unit in ("apache2.service", "php8.2-fpm.service"):
            self.path(f"/etc/systemd/system/multi-user.target.wants/{unit}").unlink(missing_ok=True)
        self.tree = self.path(TREE)
        self.tree.mkdir(parents=True)

    def wait_until_it_serves(self):
        for port in (873, 514):
            wait_until(lambda: self.host.connect(self.host.address, port).close() is None, 60, f"{self.name}: port {port}")

    def install_wordpress(self):
        """Fills the database from the published tree."""
        values = {
            "tree": TREE, "title": application.TITLE, "host_name": application.HOST_NAME, "host": "preprod-db.acme.internal",
            "name": database.NAME, "user": database.USER, "password": database.PASSWORD,
            "admin_password": "MADE-UP-SECRET-of-admin",
        }
        self.write("/root/install.php", INSTALL)
        # By standard input: an argument list is everyone's to read.
        title = self.run("php", "/root/install.php", input=json.dumps(values))
        assert title == application.TITLE, title

    def received(self):
        """What the fronts sent to the central log."""
        path = self.path(LOG)
        return path.read_text(errors="replace") if path.exists() else ""
