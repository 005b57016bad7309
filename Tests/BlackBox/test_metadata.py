"""Who this instance is, through the binary: a recorded instance, a metadata service with and without faults, and its role's
credentials for a bucket. Never the real service: every run is pointed at one of the test's own."""

import json
import os
import subprocess

import pytest
import yaml

from fault_servers import BucketServer, MetadataService, RecordingProxy
from scratch_front import free_port, tree
from test_restore import archive, assert_nothing_left, restore

MARK = "MADE-UP-SECRET"
ROLE = ("AKROLEMADEUP", "MADE-UP-SECRET/of+the+role")
OTHER = ("AKOTHERMADEUP", "MADE-UP-SECRET/of+another")


@pytest.fixture
def site(base):
    """A small site, and a bucket folder with a backup of it."""
    (base / "site").mkdir()
    (base / "site/index.php").write_text("<?php\n")
    (base / "site/random").write_bytes(os.urandom(6 << 20))
    (base / "store/acme").mkdir(parents=True)
    archive(base / "site", base / "store/acme/20261124T030000Z.tar.gz")
    return base


def by_role(service, bucket, target, *words, environment=None, **options):
    return restore("s3://acme/", target, "--endpoint", bucket.url, *words, **options,
                   environment={"AWS_EC2_METADATA_DISABLED": "false", **service.environment, **(environment or {})})


def test_the_role_of_the_instance_opens_the_bucket(site):
    with BucketServer(site / "store", keys=[ROLE]) as bucket, MetadataService([MetadataService.document(*ROLE)]) as service, \
            RecordingProxy() as proxy:
        # Three failures come first.
        service.failures = 3
        done = by_role(service, bucket, site / "out", environment={
            "http_proxy": proxy.url, "HTTP_PROXY": proxy.url, "https_proxy": proxy.url, "all_proxy": proxy.url,
            "no_proxy": "127.0.0.1"})
        assert done.status == 0, done
        assert tree(site / "out") == tree(site / "site")
        assert proxy.requests == []
        asked = [(method, path) for method, path, _ in service.requests]
        assert ("PUT", "/latest/api/token") in asked
        assert ("GET", f"/latest/meta-data/iam/security-credentials/{service.role}") in asked
        assert all("X-Forwarded-For" not in headers for _, _, headers in service.requests)
        assert MARK not in done.messages + done.output


def test_the_metadata_service_is_not_asked_through_a_proxy(site):
    with BucketServer(site / "store", keys=[ROLE]) as bucket, MetadataService([MetadataService.document(*ROLE)]) as service, \
            RecordingProxy() as proxy:
        done = by_role(service, bucket, site / "out", "--deadline", "20s", environment={"http_proxy": proxy.url, "all_proxy": proxy.url})
        # The bucket is asked through it, and the proxy refuses; the metadata service was not.
        assert done.status == 69, done
        assert service.requests and proxy.requests
        assert all(f":{bucket.port}/" in path and "/latest/" not in path for _, path, _ in proxy.requests)


def test_credentials_are_renewed_on_the_way(site):
    """The first keys end in four minutes: others are asked for before they are used. Keys that the bucket does not know are
    asked for once more."""
    cases = [[MetadataService.document(*OTHER, seconds=240), MetadataService.document(*ROLE)],
             [MetadataService.document(*OTHER), MetadataService.document(*ROLE)]]
    with BucketServer(site / "store", keys=[ROLE]) as bucket:
        for number, documents in enumerate(cases):
            with MetadataService(documents) as service:
                done = by_role(service, bucket, site / f"out{number}")
                assert done.status == 0 and service.given >= 2, (service.given, done)
                assert tree(site / f"out{number}") == tree(site / "site")
                assert MARK not in done.messages


def test_a_service_that_ends_after_the_first_keys(site):
    """What was given serves until it really expires, also when nobody renews it."""
    documents = [MetadataService.document(*ROLE, seconds=200), b"", b"<html>"]
    with BucketServer(site / "store", keys=[ROLE]) as bucket, MetadataService(documents) as service:
        done = by_role(service, bucket, site / "out", "--deadline", "100s")
        assert done.status == 0, done
        assert tree(site / "out") == tree(site / "site")


@pytest.mark.parametrize("what, settings, status, said", [
    ("no role", {}, 77, "instance profile"),
    ("disabled", {"token": 403}, 69, "disabled"),
    ("a role that climbs", {"credentials": [{}], "role": "../../../user-data"}, 77, "role"),
    ("a role with a line break", {"credentials": [{}], "role": "a\r\nX: b"}, 77, "role"),
    ("an instance that is none", {"items": {"meta-data/instance-id": "$(reboot)"}}, 69, "instance-id"),
    ("an identity that is a page", {"items": {"dynamic/instance-identity/document": "<html>"}}, 69, "identity document"),
    ("user-data without end", {"items": {"user-data": "x" * (80 << 10)}}, 69, "user-data"),
])
def test_a_service_that_is_not_as_it_should_be(site, what, settings, status, said):
    settings = dict(settings)
    role = settings.pop("role", None)
    with BucketServer(site / "store", keys=[ROLE]) as bucket, MetadataService(**settings) as service:
        if role:
            service.role = role
        done = by_role(service, bucket, site / "out", "--region", "eu-west-1", "--deadline", "60s")
        assert done.status == status, (what, done)
        assert said in done.messages, (what, done)
        assert_nothing_left(site / "out")


def test_a_token_that_never_comes_names_the_hop_limit(site):
    with BucketServer(site / "store", keys=[ROLE]) as bucket, MetadataService([MetadataService.document(*ROLE)], token="hang") as service:
        done = by_role(service, bucket, site / "out", "--deadline", "10s", "-v")
        assert done.status == 124 and "hop limit" in done.messages, done
        # Nothing was asked without a token.
        assert {method for method, _, _ in service.requests} == {"PUT"}


def test_nobody_is_there(site):
    environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{free_port()}", "AWS_EC2_METADATA_DISABLED": "false"}
    done = restore("s3://acme/", site / "out", "--region", "eu-west-1", "--deadline", "3s", "-v", environment=environment)
    assert done.status == 124 and "refused the connection" in done.messages, done
    for endpoint in ["ftp://127.0.0.1", "127.0.0.1", "http://"]:
        done = restore("s3://acme/", site / "out", environment={**environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint})
        assert done.status == 78 and "AWS_EC2_METADATA_SERVICE_ENDPOINT" in done.messages, (endpoint, done)
    assert_nothing_left(site / "out")


def test_a_recorded_instance(make_front):
    front = make_front()
    record = front.base / "record.json"
    odd = "two\nlines $(touch x) `id` \"'<?php\\ ü"
    record.write_text(json.dumps({"platform": "recorded", "instance-id": "i-0123456789abcdef0", "region": "eu-west-1",
                                  "tags": {"Name": odd}}))
    front.template("release/tag.php", "<?php echo {{instance.tags.Name}}, '|', {{instance.region}};\n")
    front.template("release/tag.sh", "NAME={{instance.tags.Name}}\n")
    done = front.boot("--metadata", str(record))
    assert done.status == 0, done
    assert front.fetch("/tag.php") == (200, f"{odd}|eu-west-1")
    shown = subprocess.run(["sh", "-c", '. "$0"; printf %s "$NAME"', front.site / "current/tag.sh"], capture_output=True, text=True)
    assert shown.stdout == odd and shown.stderr == ""
    for text in ["", "{", "[]", '{"platform": "recorded"}', '{"instance-id": "i-1", "unknown": 1}', '{"instance-id": 5}',
                 '{"instance-id": "a b\\n"}', '{"instance-id": "i-1", "region": "eu/../x"}']:
        record.write_text(text)
        done = front.sync("--metadata", str(record))
        assert done.status == 78 and str(record) in done.messages, (text, done)
        assert front.fetch("/") == (200, "page 1 1\n")
    done = front.sync("--metadata", str(front.base / "none.json"))
    assert done.status != 0 and "none.json" in done.messages, done


def test_user_data_and_tags_of_the_service(make_front):
    """A whole boot as an instance: settings in the user-data, a tag in a template, the backup by the role."""
    front = make_front(metadata=["nocloud", "ec2"])
    front.template("release/tag.php", "<?php echo {{instance.id}}, '|', {{instance.zone}}, '|', {{instance.tags.Name}};\n")
    (front.base / "store").mkdir()
    front.bucket.rename(front.base / "store/acme")
    with BucketServer(front.base / "store", keys=[ROLE]) as bucket, MetadataService(
            [MetadataService.document(*ROLE)], items={
                "user-data": "#amorce\n" + yaml.safe_dump({"backup": {"from": "s3://acme/", "endpoint": bucket.url}, "environment": "rehearsal"}),
                "meta-data/tags/instance": "Name", "meta-data/tags/instance/Name": "front 1"}) as service:
        front.write_settings(backup=None)
        done = front.boot("-v", environment=service.environment)
        assert done.status == 0, done
        assert front.fetch("/tag.php") == (200, "i-0123456789abcdef0|eu-west-1a|front 1")
        assert MARK not in done.messages + front.everything_said()
        # The service is gone: the front serves on, and says what is wrong.
        service.token = 403
        done = front.sync(environment=service.environment)
        assert done.status == 69 and "serves as before" in done.messages, done
        assert front.fetch() == (200, "page 1 1\n") and front.fetch("/amorce/health")[0] == 200
