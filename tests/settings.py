"""Settings of the test run: production's, with throw-away keys, and whatever database TEST_DATABASE_URL names."""

import atexit
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from portal import dumps

# Files of tests lie in memory where there is room: vaults and SQLite wait for the disk at each write.
# A process that is killed loses nothing there; only a power cut would tell the two apart.
_memory = Path("/dev/shm")  # noqa: S108  # each use makes a folder of its own with a random name
if "TMPDIR" not in os.environ and os.access(_memory, os.W_OK) and shutil.disk_usage(_memory).free > 2 * 1024**3:
    os.environ["TMPDIR"] = str(_memory)
    tempfile.tempdir = None  # asked anew

_scratch = Path(tempfile.mkdtemp(prefix="cpv-portal-tests-"))
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
os.environ.update(
    {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "INTEGRITY_KEY": secrets.token_urlsafe(48),
        "PUBLIC_BASE_URL": "https://portal.localhost",
        "ALLOWED_HOSTS": "portal.localhost,testserver,localhost,127.0.0.1",
        "DATABASE_URL": os.environ.get("TEST_DATABASE_URL", f"sqlite:///{_scratch / 'db.sqlite3'}"),
        "VAULT_URL": str(_scratch / "vault"),
        "VAULT_KEY_FILE": str(_scratch / "vault-key"),
        "AUDIT_ANCHOR_FILE": str(_scratch / "anchors.jsonl"),  # of processes that tests start
        "SUPPORT_EMAIL": "support@vendor.example",
        "STAFF_PASSWORD_ALONE": "true",  # most tests sign in by force_login; those of the sign-in switch it off
        "REQUEST_LIMIT_FACTOR": "1000",  # all tests share one address; those of the limits themselves set 1
        "PARTNER_RATE": "1000",  # no test waits for a partner's turn; those of the pacer name a rate of their own
        "LOG_FORMAT": "console",
        "LOG_LEVEL": "DEBUG",
        "CELERY_BROKER_URL": os.environ.get("TEST_CELERY_BROKER_URL", ""),
    }
)
for _name in (
    "ADMIN_HOST",
    "TEST_ENDPOINTS",
    "TEST_CA_FILE",
    "DEBUG",
    "TRUSTED_PROXIES",
    "OUTGOING_PROXY",
):
    os.environ[_name] = ""

if "pytest" in sys.modules:
    # Not in the tests' own process, which could never allow them again: what it starts shall show that it forbids them.
    dumps.forbid_core_files = lambda: None

from portal.settings import *  # noqa: E402, F403
from portal.settings import DATABASES, MIDDLEWARE, STORAGES  # noqa: E402

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # speed only; no test is about hashing
AUDIT_ANCHOR_FILE = ""  # the rows of one test are gone with it; tests of anchors name a file of their own
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
MIDDLEWARE = [name for name in MIDDLEWARE if not name.startswith("whitenoise")]
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A file, not memory: threads and the browser's server need their own connections.
    DATABASES["default"]["TEST"] = {"NAME": str(_scratch / "test.sqlite3")}
