"""AADSTS answers of the token endpoint, in the exact form that Microsoft documents."""

from __future__ import annotations

import datetime
import json
import uuid

from aiohttp import web

from portal.sandbox.world import World

# Code: (error, suberror, HTTP status). The numbers' meaning is Microsoft's; the sentences are ours.
KNOWN: dict[int, tuple[str, str, int]] = {
    50013: ("invalid_grant", "", 400),
    50020: ("invalid_grant", "", 400),
    50034: ("invalid_grant", "", 400),
    50053: ("invalid_grant", "", 400),
    50057: ("invalid_grant", "", 400),
    50076: ("invalid_grant", "basic_action", 400),
    50079: ("invalid_grant", "basic_action", 400),
    50173: ("invalid_grant", "bad_token", 400),
    50196: ("invalid_grant", "", 400),
    53003: ("invalid_grant", "message_only", 400),
    54005: ("invalid_grant", "", 400),
    65001: ("invalid_grant", "consent_required", 400),
    70000: ("invalid_grant", "bad_token", 400),
    70003: ("unsupported_grant_type", "", 400),
    70008: ("invalid_grant", "token_expired", 400),
    70011: ("invalid_scope", "", 400),
    70043: ("invalid_grant", "bad_token", 400),
    700005: ("invalid_grant", "", 400),
    700016: ("unauthorized_client", "", 400),
    700022: ("invalid_scope", "", 400),
    700024: ("invalid_client", "", 401),
    700027: ("invalid_client", "", 401),
    700082: ("invalid_grant", "token_expired", 400),
    700084: ("invalid_grant", "token_expired", 400),
    7000112: ("unauthorized_client", "", 400),
    7000215: ("invalid_client", "", 401),
    7000218: ("invalid_client", "", 401),
    7000222: ("invalid_client", "", 401),
    90002: ("invalid_request", "", 400),
    90014: ("invalid_request", "", 400),
    90033: ("temporarily_unavailable", "", 503),
    90055: ("temporarily_unavailable", "", 429),
    90094: ("access_denied", "", 400),
    90099: ("unauthorized_client", "", 400),
    900144: ("invalid_request", "", 400),
    901002: ("invalid_request", "", 400),
    9002313: ("invalid_grant", "", 400),
    500011: ("invalid_resource", "", 400),
    500112: ("invalid_grant", "", 400),
    500133: ("invalid_grant", "", 400),
    501481: ("invalid_grant", "", 400),
    650057: ("invalid_resource", "", 400),
}


class Refused(Exception):
    """The token endpoint says no with this code."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.text = text or "The request was refused by the sandbox."


def token_error(world: World, code: int, text: str, correlation_id: str) -> web.Response:
    """Return the JSON error of the token endpoint for a code; unknown codes are ``invalid_grant``."""
    error, suberror, status = KNOWN.get(code, ("invalid_grant", "", 400))
    trace = str(uuid.uuid4())
    moment = datetime.datetime.fromtimestamp(world.now(), datetime.UTC)
    stamp = f"{moment:%Y-%m-%d %H:%M:%S}Z"
    body: dict[str, object] = {
        "error": error,
        "error_description": f"AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation_id} "
        f"Timestamp: {stamp}",
        "error_codes": [70002, code] if code in {70008, 500133} else [code],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": correlation_id,
        "error_uri": f"https://login.microsoftonline.com/error?code={code}",
    }
    if suberror:
        body["suberror"] = suberror
    if code == 50076:
        rule = {"access_token": {"capolids": {"essential": True, "values": ["00000000-0000-0000-0000-000000000001"]}}}
        body["claims"] = json.dumps(rule)
    headers = {"x-ms-request-id": trace, "Cache-Control": "no-store, no-cache"}
    if status in {429, 503} and world.switches["retry_after"]:
        headers["Retry-After"] = "2"
    return web.json_response(body, status=status, headers=headers)


def page_error(code: int, text: str) -> web.Response:
    """Return a plain error of the authorize channel."""
    return web.Response(status=400, text=f"AADSTS{code}: {text}")
