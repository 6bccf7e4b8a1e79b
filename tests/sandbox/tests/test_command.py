from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from tests.sandbox.__main__ import main
from tests.sandbox.server import Sandbox


def test_the_command_needs_test_endpoints_and_a_place_for_the_ca(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="TEST_ENDPOINTS"):
        main([])
    settings.TEST_ENDPOINTS, settings.TEST_CA_FILE = 1, str(tmp_path / "other.pem")
    with pytest.raises(SystemExit, match=r"ca\.pem"):
        main([])


def test_a_taken_port_is_named_by_its_variable(settings: Settings, tmp_path: Path, sandbox: Sandbox) -> None:
    settings.TEST_ENDPOINTS, settings.TEST_CA_FILE = sandbox.port, str(tmp_path / "ca.pem")

    with pytest.raises(SystemExit, match=f"TEST_ENDPOINTS={sandbox.port}"):
        main([])


def test_a_folder_that_cannot_be_made_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings.TEST_ENDPOINTS, settings.TEST_CA_FILE = _free_port(), str(tmp_path / "file" / "ca.pem")

    with pytest.raises(SystemExit, match="file cannot be used"):
        main([])


def test_it_runs_in_the_foreground_says_where_and_stops_at_a_signal(tmp_path: Path) -> None:
    port, browser_port = _free_port(), _free_port()
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "TEST_ENDPOINTS": str(port),
        "TEST_SIGN_IN_PORT": str(browser_port),
        "TEST_CA_FILE": str(tmp_path / "sandbox" / "ca.pem"),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "tests.sandbox", "--scenario", "demo"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        try:
            assert running.stdout
            said = []
            for line in running.stdout:
                said.append(line.decode())
                if "Ready" in said[-1]:
                    break
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0, said
        finally:
            running.kill()
    text = "".join(said)
    assert f"https://login.global.localhost:{port}" in text
    assert f"http://control.localhost:{browser_port}\n" in text
    assert (tmp_path / "sandbox" / "ca.pem").exists()


def test_settings_that_are_refused_end_it_with_one_line(tmp_path: Path) -> None:
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "portal.settings", "TEST_ENDPOINTS": "1", "TEST_CA_FILE": ""}
    refused = subprocess.run(
        [sys.executable, "-m", "tests.sandbox"], env=environment, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "TEST_ENDPOINTS needs TEST_CA_FILE: the ca.pem that `make sandbox` writes" in refused.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
