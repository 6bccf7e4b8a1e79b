"""The environment of the demo: a folder of its own, free ports, generated keys. Nothing of a real deployment is read or
touched.

The environment is set before the settings are read; the folder is touched only when the demo really starts. It is
emptied only if a demo made it, which its marker says, and never while one runs: its processes lock the marker.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
from pathlib import Path
from typing import IO

FOLDER = Path(os.environ.get("DEMO_FOLDER") or Path(__file__).resolve().parents[3] / ".demo")
MARKER = "made-by-make-demo"
_KEYS = ("SECRET_KEY", "INTEGRITY_KEY")
_PORTAL, _SANDBOX, _SIGN_IN = 8000, 9443, 9080


class FolderRefused(Exception):
    """The folder cannot be the demo's; the text says why and what to do. Nothing in it was touched."""


control_port = 0
"""Where the sandbox answers over plain http, for the demo itself and its control pages."""


def set_environment(*, https: bool = False) -> None:
    """Set the environment of this process, before its settings are read. No file is touched.

    Args:
        https: portal and sign-in pages answer over TLS only, with the certificate that the sandbox makes.
    """
    global control_port
    portal, sandbox, sign_in = (_free_port(port) for port in (_PORTAL, _SANDBOX, _SIGN_IN))
    control_port = sign_in
    ours = {
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        **{name: secrets.token_urlsafe(48) for name in _KEYS},
        "SERVE_STATIC_FROM_SOURCE": "true",
        "PUBLIC_BASE_URL": f"{'https' if https else 'http'}://localhost:{portal}",
        "ADMIN_HOST": "",
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "DATABASE_URL": f"sqlite:///{FOLDER / 'db.sqlite3'}",
        "VAULT_URL": str(FOLDER / "vault"),
        "VAULT_KEY_FILE": str(FOLDER / "vault-key"),
        "AUDIT_ANCHOR_FILE": str(FOLDER / "audit-anchors.jsonl"),
        "TEST_ENDPOINTS": str(sandbox),
        "TEST_SIGN_IN_PORT": "0" if https else str(sign_in),
        "TEST_CA_FILE": str(FOLDER / "sandbox" / "ca.pem"),
        # A browser keeps it for all ports of localhost, and would open nothing there over http for a year.
        "SECURE_HSTS_SECONDS": "0",
        "STAFF_SINGLE_PERSON": "true",  # nobody else is there to decide
        "VENDOR_NAME": "Example Control Panel",
        "SUPPORT_EMAIL": "support@vendor.example",
        "STAFF_PASSWORD_ALONE": "true",  # a demo is shown before anybody has set a factor
        "LOG_FORMAT": "console",
        "LOG_LEVEL": "WARNING",
        # What a deployment's .env may say, and would reach beyond this machine.
        **dict.fromkeys(
            (
                "EMAIL_HOST",
                "ALERT_EMAIL",
                "STAFF_OIDC_TENANT",
                "STAFF_OIDC_ISSUER",
                "CELERY_BROKER_URL",
                "OUTGOING_PROXY",
                "DEBUG",
            ),
            "",
        ),
    }
    os.environ.update(ours | {f"{name}_FILE": "" for name in ours})


def prepare() -> IO[str]:
    """Take the folder, empty it, and return its marker: the folder is this demo's as long as a process has it open.

    Children inherit the environment: from here on it names files with the keys, as /proc shows it to others.

    Raises:
        FolderRefused: it is not the demo's, or a demo runs in it.
    """
    os.umask(0o077)
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        if not (FOLDER / MARKER).is_file() and any(FOLDER.iterdir()):
            raise FolderRefused(
                f"{FOLDER} holds files that the demo did not make, so it is not emptied. Remove it yourself, or name "
                "another folder with DEMO_FOLDER."
            )
        marker = (FOLDER / MARKER).open("a+", encoding="utf-8")
    except OSError as error:
        raise FolderRefused(f"{FOLDER} cannot be used: {error.strerror}. Name another with DEMO_FOLDER.") from None
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        marker.seek(0)
        processes = ", ".join(marker.read().split())
        raise FolderRefused(
            f"A demo is running in {FOLDER} (processes {processes}). Stop it first, or name another folder with "
            "DEMO_FOLDER."
        ) from None
    for path in FOLDER.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()
    marker.truncate(0)
    note(marker, os.getpid())
    for name in _KEYS:
        file = FOLDER / name.lower()
        file.write_text(os.environ[name], encoding="utf-8")
        os.environ |= {name: "", f"{name}_FILE": str(file)}
    return marker


def note(marker: IO[str], process: int) -> None:
    """Write down a process of this demo, for who finds the folder taken."""
    marker.write(f"{process}\n")
    marker.flush()


def _free_port(wanted: int) -> int:
    """Return the wanted port of the loopback interface, or another when it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on the loopback interface")
