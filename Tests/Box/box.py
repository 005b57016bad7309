"""The box: an environment and all it needs, in namespaces of one process; gone when it is closed."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import ami
import application
import bucket
import database
import front as fronts
from application import Application
from database import Database
from front import Front
from isolation import private_mounts
from metadata import Metadata, MetadataService
from network import Network
from orchestrator import Orchestrator
from programs import run

DATABASE_NAME = "preprod-db.acme.internal"
ORCHESTRATOR_NAME = "orchestrator.acme.internal"
BUCKET_NAME = "bucket.acme.internal"


class Box:
    """`with Box() as box:` has everything running but a front; `box.front(...)` makes one.

    What was started is stopped in reverse order, however the block is left. What a killed process leaves behind is one
    folder below /var/tmp and empty control groups.
    """

    def __enter__(self):
        private_mounts()
        self._stack = ExitStack()
        self._second_bucket = None
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _build(self):
        defer = self._stack.callback
        # Not /tmp, which may be in memory: instances and archives are written here.
        self.folder = Path(tempfile.mkdtemp(prefix="amorce-box-", dir="/var/tmp"))
        defer(shutil.rmtree, self.folder)
        self.ami = ami.standard_ami()
        self.application = Application(self.folder / "application")
        self.network = Network(self.folder / "network")
        defer(self._unmount_networks)

        self.metadata = MetadataService(self.network.gateway)
        defer(self.metadata.close)
        hosts = {name: self.network.host(name) for name in ("bucket", "database", "orchestrator", "visitor")}
        self.visitor = hosts["visitor"]
        self.names = {
            DATABASE_NAME: hosts["database"].address, ORCHESTRATOR_NAME: hosts["orchestrator"].address,
            BUCKET_NAME: hosts["bucket"].address,
        }

        self.orchestrator = Orchestrator(self.folder / "orchestrator", hosts["orchestrator"], [self.ami], self.names)
        defer(self.orchestrator.destroy)
        self.orchestrator.power_on()
        self.bucket = bucket.RcloneBucket(self.folder / "bucket", hosts["bucket"])
        defer(self.bucket.close)
        self.backup = self.application.backup()
        self.bucket.put(self.backup.key, self.backup.path)
        self.database = Database(self.folder / "database", hosts["database"])
        defer(self.database.close)
        self.application.publish(self.orchestrator.tree)
        self.orchestrator.wait_until_it_serves()
        self.orchestrator.install_wordpress()
        self.shipped = fronts.shipped_layer(self.folder / "shipped")

    def second_bucket(self):
        """The stricter one, with the same backup; started when it is first asked for."""
        if self._second_bucket is None:
            self._second_bucket = bucket.MinistackBucket(self.folder / "second-bucket", self.network.host("second-bucket"))
            self._stack.callback(self._second_bucket.close)
            self._second_bucket.put(self.backup.key, self.backup.path)
        return self._second_bucket

    def _unmount_networks(self):
        for path in (self.folder / "network").iterdir():
            run("umount", path)

    def front(self, name, user_data=None, **metadata):
        """A new front that is not switched on yet; `user_data` is what the metadata service has for it."""
        host = self.network.host(name)
        layers = [self.shipped, self.ami]
        front = Front(self.folder / name, host, layers, {**self.names, application.HOST_NAME: host.address})
        self._stack.callback(front.destroy)
        number = host.address.rsplit(".", 1)[1]
        metadata.setdefault("keys", self.bucket.keys)
        front.metadata = self.metadata.add(Metadata(
            instance_id=f"i-0000000000000{int(number):04x}", address=host.address, hostname=name, user_data=user_data,
            mac=f"02:00:00:00:00:{int(number):02x}", **metadata))
        return front
