"""A MariaDB server with a data folder of its own: the database of an environment, made from production's snapshot."""

import signal
from pathlib import Path

from programs import Daemon, run, wait_until

NAME = "boutique"
USER = "boutique"
# Everything that breaks a file which a `sed` has filled in.
PASSWORD = r"""MADE-UP-SECRET it's "so" $HOME ${x} \n #1 % {{db}} ;&<é"""


class Database:
    def __init__(self, folder, host):
        self.host = host
        self.address = host.address
        folder = Path(folder)
        folder.mkdir(parents=True)
        data, self._socket = folder / "data", folder / "socket"
        run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root", "--auth-root-authentication-method=socket",
            "--skip-test-db")
        self._server = Daemon("mariadb", host.command([
            "mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={self._socket}", "--user=root",
            f"--bind-address={host.address}", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0",
            f"--pid-file={folder}/pid"]), folder / "log")
        wait_until(lambda: self._server.must_run() and self.sql("SELECT 1"), 30, "the database answers")
        self.sql(f"CREATE DATABASE {NAME} CHARACTER SET utf8mb4;"
                 f"CREATE USER '{USER}'@'%' IDENTIFIED BY {self.quoted(PASSWORD)};"
                 f"GRANT ALL ON {NAME}.* TO '{USER}'@'%';")

    def sql(self, statements):
        return run("mariadb", "--no-defaults", f"--socket={self._socket}", "--user=root", "--default-character-set=utf8mb4",
                   "--batch", "--skip-column-names", input=statements)

    @staticmethod
    def quoted(text):
        """A string literal of SQL."""
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def close(self):
        # What it holds is thrown away with it.
        self._server.stop(signal.SIGKILL)
