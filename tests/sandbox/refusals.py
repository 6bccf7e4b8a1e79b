"""AADSTS answers of the token endpoint, in the exact form that Microsoft documents."""

from __future__ import annotations

import datetime
import json
import uuid

from aiohttp import web

from tests.sandbox.world import World

# (error, suberror, HTTP status): codes. The numbers' meaning is Microsoft's; sentences and grouping are ours.
_GROUPS: dict[tuple[str, str, int], set[int]] = {
    ("invalid_grant", "", 400): {
        50013, 50014, 50020, 50034, 50053, 50056, 50057, 50085, 50089, 50126, 50132, 50133, 50135, 50177, 50196,
        54005, 90072, 500112, 500133, 501481, 700005, 9002313,
    },
    ("invalid_grant", "basic_action", 400): {50072, 50074, 50076, 50078, 50079},
    ("invalid_grant", "additional_action", 400): {50158, 53000, 53001, 530003},
    ("invalid_grant", "message_only", 400): {53002, 53003, 53011, 530032, 530034, 530035},
    ("invalid_grant", "consent_required", 400): {65001},
    ("invalid_grant", "user_password_expired", 400): {50055, 50144},
    ("invalid_grant", "bad_token", 400): {50173, 70000, 70043},
    ("invalid_grant", "token_expired", 400): {70008, 700082, 700084},
    ("invalid_grant", "device_authentication_failed", 400): {50155, 700003},
    ("interaction_required", "", 400): {
        16000, 16003, 50097, 50125, 50131, 50140, 50161, 50168, 50178, 50197, 50199, 51004, 53004, 53010, 700020,
    },
    ("login_required", "", 400): {50058},
    ("access_denied", "", 400): {
        50002, 50105, 65004, 90093, 90094, 90095, 500021, 500022, 500208, 500212, 500213, 1000104,
    },
    ("invalid_client", "", 401): {
        50012, 65002, 65005, 70002, 70021, 650051, 650056, 700024, 700025, 700027, 700030, 700211, 700212, 700213,
        700229, 7000215, 7000218, 7000222,
    },
    ("unauthorized_client", "", 400): {70001, 90099, 700011, 700016, 7000112, 7000114, 7000229},
    ("invalid_request", "", 400): {
        50011, 50027, 50059, 50128, 50147, 50194, 70004, 90002, 90004, 90008, 90014, 90015, 90019, 90023, 90038,
        90056, 500113, 501491, 900021, 900023, 900144, 900382, 900432, 900561, 900971, 901002, 5000224, 9001023,
    },
    ("invalid_scope", "", 400): {28000, 28002, 28003, 70011, 700022, 700023},
    ("invalid_resource", "", 400): {50001, 500011, 650052, 650054, 650057},
    ("invalid_instance", "", 400): {50049},
    ("unsupported_grant_type", "", 400): {70003},
    ("unsupported_response_type", "", 400): {70005, 700054},
    ("unsupported_response_mode", "", 400): {70007},
    ("expired_token", "", 400): {70019},
    ("server_error", "", 500): {50000, 80001, 90036, 90092},
    ("temporarily_unavailable", "", 503): {50033, 50087, 50088, 90006, 90012, 90024, 90033, 90090, 90091},
    ("temporarily_unavailable", "", 429): {90055},
}  # fmt: skip
KNOWN = {code: group for group, codes in _GROUPS.items() for code in codes}
_WITH_COMPANION = {70008, 500133}  # seen on the wire after 70002
_SERVER = "2.1.0 - SANDBOX ProdSlices"
_TENANT_POLICY = "00000000-0000-0000-0000-000000000001"


class Refused(Exception):
    """The token endpoint says no with this code."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.text = text or "The request was refused by the sandbox."


def stamp(world: World) -> str:
    """Return the world's time as Microsoft writes it in errors: a blank instead of ``T``."""
    return f"{datetime.datetime.fromtimestamp(world.now(), datetime.UTC):%Y-%m-%d %H:%M:%S}Z"


def description(world: World, code: int, text: str, trace: str, correlation_id: str) -> str:
    """Return the text of an error: four lines separated by CR LF."""
    return (
        f"AADSTS{code}: {text} \r\nTrace ID: {trace}\r\nCorrelation ID: {correlation_id}\r\nTimestamp: {stamp(world)}"
    )


def token_error(world: World, code: int, text: str, correlation_id: str, authority: str) -> web.Response:
    """Return the JSON error of the token endpoint for a code; unknown codes are ``invalid_grant``."""
    error, suberror, status = KNOWN.get(code, ("invalid_grant", "", 400))
    trace = str(uuid.uuid4())
    body: dict[str, object] = {
        "error": error,
        "error_description": description(world, code, text, trace, correlation_id),
        "error_codes": [70002, code] if code in _WITH_COMPANION else [code],
        "timestamp": stamp(world),
        "trace_id": trace,
        "correlation_id": correlation_id,
        "error_uri": f"{authority}/error?code={code}",
    }
    if suberror:
        body["suberror"] = suberror
    if code == 50076:
        rule = {"access_token": {"capolids": {"essential": True, "values": [_TENANT_POLICY]}}}
        body["claims"] = json.dumps(rule)
    headers = service_headers(trace)
    if status in {429, 503} and world.switches["retry_after"]:
        headers["Retry-After"] = "2"
    return web.json_response(body, status=status, headers=headers)


def discovery_refusal(tenant: str) -> web.Response:
    """Return what the service says about a tenant that it does not know."""
    text = f"AADSTS90002: Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and cloud."
    return web.json_response({"error": "invalid_tenant", "error_description": text, "error_codes": [90002]}, status=400)


def service_headers(trace: str) -> dict[str, str]:
    """Return the headers of every answer of the token endpoint."""
    return {"x-ms-request-id": trace, "x-ms-ests-server": _SERVER, "Cache-Control": "no-store, no-cache"}


def page_error(code: int, text: str) -> web.Response:
    """Return a plain error of the authorize channel."""
    return web.Response(status=400, text=f"AADSTS{code}: {text}")
