"""A stand-in for Azure CLI, as far as our script needs it: ``python -m tests.support.az``; calls the sandbox's Graph.

What it does not know is refused, as a typing error is by the real one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.sandbox.tests.wire import Wire


def main(arguments: list[str]) -> int:
    place = json.loads(os.environ["AZ_PLACE"])
    with Path(place["log"]).open("a") as log:
        log.write(f"{' '.join(arguments)}\n")
    match arguments:
        case ["cloud", "set", "--name", _]:
            return 0
        case ["login", "--tenant", _, "--allow-no-subscriptions", "--output", "none"]:
            return 0
        case ["ad", "sp", "show", "--id", app_id, "--output", "none"]:
            return _call(place, "GET", f"{place['graph']}/v1.0/servicePrincipals(appId='{app_id}')", None, {})
        case ["ad", "sp", "create", "--id", app_id, "--output", "none"]:
            return _call(place, "POST", f"{place['graph']}/v1.0/servicePrincipals", {"appId": app_id}, {})
        case ["rest", *rest]:
            options = dict(zip(rest[::2], rest[1::2], strict=True))
            assert options.keys() <= {"--method", "--url", "--headers", "--body", "--query", "--output"}, options
            text = options.get("--body", "")
            body = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text) if text else None
            return _call(place, options.get("--method", "GET"), options["--url"], body, options)
    print(f"unknown command: {arguments}", file=sys.stderr)  # noqa: T201
    return 2


def _call(place: dict[str, Any], method: str, url: str, body: Any, options: dict[str, str]) -> int:
    wire: Any = Wire(SimpleNamespace(port=place["port"], ca_file=place["ca_file"]))  # type: ignore[arg-type]
    reply = wire.call(method, url, data=body, token=place["token"])
    if reply.status >= 300:
        print(reply.text, file=sys.stderr)  # noqa: T201
        return 1
    if options.get("--output") != "none" and reply.body:
        answer = reply.json()
        print(answer[options["--query"]] if "--query" in options else json.dumps(answer))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
