"""Buckets: rclone's S3 server over a folder, and ministack, which checks what rclone lets pass."""

import json
import os
import signal
import sys
from pathlib import Path

import botocore.session

from isolation import inside_network
from programs import BoxError, Daemon, wait_until

NAME = "acme-backups"
PORT = 9000
KEY = "AKIAMADEUPKEY0000001"
SECRET = "MADE-UP-SECRET-of-the-bucket"
REGION = "eu-west-1"


def _tool(name):
    """A program of the virtual environment the tests run in."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise BoxError(f"{path} is missing: run scripts/test-tools")
    return path


class RcloneBucket:
    def __init__(self, folder, host):
        self.address, self.endpoint = host.address, f"http://{host.address}:{PORT}"
        # The session token of a role is accepted whatever it is; key and secret are checked.
        self.keys = (KEY, SECRET, "MADE-UP-SECRET-session")
        folder = Path(folder)
        self._store = folder / "store"
        (self._store / NAME).mkdir(parents=True)
        self._server = Daemon("rclone", host.command([
            _tool("rclone"), "serve", "s3", "--config=", f"--addr={host.address}:{PORT}", f"--auth-key={KEY},{SECRET}",
            # Keys appear in the folder behind its back.
            "--dir-cache-time=0", self._store]), folder / "log", env={"PATH": "/usr/bin:/bin", "HOME": str(folder)})
        wait_until(lambda: self._server.must_run() and host.connect(host.address, PORT).close() is None, 30, "rclone listens")

    def put(self, key, path):
        place = self._store / NAME / key
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)

    def close(self):
        # What it holds is thrown away with it.
        self._server.stop(signal.SIGKILL)


class MinistackBucket:
    """What rclone does not judge: session tokens, the region of a signature, a role's policy, ranges answered with 206."""

    def __init__(self, folder, host):
        self.address, self.endpoint = host.address, f"http://{host.address}:{PORT}"
        self._host = host
        folder = Path(folder)
        folder.mkdir()
        self._server = Daemon("ministack", host.command([_tool("ministack")]), folder / "log", env={
            "PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "AUTH": "true", "GATEWAY_PORT": str(PORT),
            "BIND_HOST": host.address, "MINISTACK_HOST": host.address, "MINISTACK_REGION": REGION})
        wait_until(lambda: self._server.must_run() and host.get(host.address, "/_ministack/health", port=PORT)[0] == 200, 60,
                   "ministack answers")
        policy = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{NAME}"},
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{NAME}/*"}]}
        trust = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "sts:AssumeRole"}]}
        with inside_network(host.namespace):
            self._client("s3").create_bucket(Bucket=NAME, CreateBucketConfiguration={"LocationConstraint": REGION})
            iam = self._client("iam")
            role = iam.create_role(RoleName="front", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
            iam.put_role_policy(RoleName="front", PolicyName="read", PolicyDocument=json.dumps(policy))
            given = self._client("sts").assume_role(RoleArn=role, RoleSessionName="front")["Credentials"]
        self.keys = (given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])

    def _client(self, service, keys=("test", "test", None)):
        return botocore.session.Session().create_client(
            service, region_name=REGION, endpoint_url=self.endpoint, aws_access_key_id=keys[0], aws_secret_access_key=keys[1],
            aws_session_token=keys[2])

    def put(self, key, path):
        with inside_network(self._host.namespace):
            self._client("s3").put_object(Bucket=NAME, Key=key, Body=Path(path).read_bytes())

    def get(self, key, keys):
        with inside_network(self._host.namespace):
            return self._client("s3", keys).get_object(Bucket=NAME, Key=key)["Body"].read()

    def close(self):
        # What it holds is thrown away with it.
        self._server.stop(signal.SIGKILL)
