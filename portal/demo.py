"""The environment of ``manage.py demo``: a folder of its own, free ports, generated keys. Nothing of a real deployment
is read or touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from pathlib import Path

FOLDER = Path(os.environ.get("DEMO_FOLDER") or Path(__file__).resolve().parent.parent / ".demo")
_PORTAL, _SANDBOX, _SIGN_IN = 8000, 9443, 9080


def prepare() -> None:
    """Start from nothing and set this process's environment, which the demo's children inherit."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(mode=0o700)
    portal, sandbox, sign_in = (_free_port(port) for port in (_PORTAL, _SANDBOX, _SIGN_IN))
    os.environ.update(
        {
            "SECRET_KEY": secrets.token_urlsafe(48),
            "INTEGRITY_KEY": secrets.token_urlsafe(48),
            "SERVE_STATIC_FROM_SOURCE": "true",
            "PUBLIC_BASE_URL": f"http://localhost:{portal}",
            "ADMIN_HOST": "",
            "ALLOWED_HOSTS": "localhost,127.0.0.1",
            "DATABASE_URL": f"sqlite:///{FOLDER / 'db.sqlite3'}",
            "VAULT_URL": str(FOLDER / "vault"),
            "VAULT_KEY_FILE": str(FOLDER / "vault-key"),
            "TEST_ENDPOINTS": str(sandbox),
            "TEST_SIGN_IN_PORT": str(sign_in),
            "TEST_CA_FILE": str(FOLDER / "sandbox" / "ca.pem"),
            "VENDOR_NAME": "Example Control Panel",
            "SUPPORT_EMAIL": "support@vendor.example",
            "LOG_FORMAT": "console",
            "LOG_LEVEL": "WARNING",
        }
    )


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
