"""The settings of the fronts: what the image knows, and what user-data adds for one environment."""

import json
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import application
import bucket
import database
import orchestrator
from box import BUCKET_NAME, DATABASE_NAME, ORCHESTRATOR_NAME

RSYNC_PASSWORD = "/etc/amorce/rsync.password"
SALT = "/etc/amorce/wordpress.salt"
# The secrets the image holds, each in its file.
FILES = {
    RSYNC_PASSWORD: orchestrator.PASSWORD + "\n",
    SALT: "MADE-UP-SECRET-salt-of-more-than-32-characters\n",
}


def image(endpoint=f"http://{BUCKET_NAME}:{bucket.PORT}"):
    """/etc/amorce/amorce.yaml: the same in every environment."""
    return f"""\
app: {application.APP}
backup:
  from: s3://{bucket.NAME}/{application.APP}/
  newest-within: 36h
  endpoint: {endpoint}
delta:
  from: rsync://{ORCHESTRATOR_NAME}/{application.APP}/
  user: {orchestrator.USER}
  password: {{ secret: "file:{RSYNC_PASSWORD}" }}
  marker: {application.MARKER}
  when-unreachable: serve-backup
  refuse-deleting-more-than: 20%
shared: [ wp-content/cache ]
templates: [ apache, php-fpm, php, wordpress ]
services: [ php8.2-fpm, apache2 ]
probe:
  url: "http://{application.HOST_NAME}/"
  expect: 200
  contains: "{application.TITLE}"
  timeout: 10s
values:
  wordpress: {{ home: "http://{application.HOST_NAME}", salt: {{ secret: "file:{SALT}" }} }}
announce: [ health-file ]
keep: 3
deadline: 2m
"""


def environment(password=database.PASSWORD, more=""):
    """What differs: where the database is. The password as it is, quoted for YAML by JSON's rules, which are YAML's too."""
    return f"""\
#amorce
environment: preprod
values:
  db:
    host: {DATABASE_NAME}
    name: {database.NAME}
    user: {database.USER}
    password: {json.dumps(password)}
{more}"""


def mime(*parts):
    """Parts of (type, text) as one user-data."""
    message = MIMEMultipart()
    for kind, text in parts:
        message.attach(MIMEText(text, kind, "utf-8"))
    return message.as_bytes()


def user_data(**words):
    return mime(("cloud-config", "#cloud-config\ntimezone: Europe/Paris\n"), ("x-amorce", environment(**words)))
