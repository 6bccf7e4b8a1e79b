"""Microsoft Graph as the imitation serves it: dispatch of single calls and of ``$batch``.

Source: Microsoft Graph v1.0, "Combine multiple requests in one HTTP call using JSON batching".
"""

from __future__ import annotations

import json
import random
import re
import secrets
import uuid
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from portal.microsoft.clouds import NationalCloud
from tests.sandbox.faults import take
from tests.sandbox.graph_applications import OPERATIONS as APPLICATIONS
from tests.sandbox.graph_calls import Answer, Call, Caller, GraphError, Item, Operation, error_body, identify
from tests.sandbox.graph_delegation import OPERATIONS as DELEGATION
from tests.sandbox.graph_directory import OPERATIONS as DIRECTORY
from tests.sandbox.notes import CLOUD
from tests.sandbox.tokens import bearer
from tests.sandbox.world import GRAPH, World

MAX_PARTS = 20
_OPERATIONS: list[tuple[str, re.Pattern[str], str, Operation]] = [
    (method, re.compile(pattern, re.IGNORECASE), name, operation)
    for method, pattern, name, operation in (*DIRECTORY, *DELEGATION, *APPLICATIONS)
]


class _Context:
    """What all parts of one HTTP request share."""

    def __init__(self, world: World, request: web.Request) -> None:
        self.world = world
        self.cloud: NationalCloud = request[CLOUD]
        self.request_id = str(uuid.uuid4())
        self.client_request_id = request.headers.get("client-request-id") or self.request_id
        self.caller: Caller | None = None

    def book(self, name: str, status: int, **more: Any) -> None:
        facts: dict[str, Any] = {"cloud": self.cloud.key, "correlation": self.client_request_id} | more
        if self.caller is not None:
            facts |= {
                "tenant": self.caller.tenant.tenant_id,
                "home": self.caller.home.tenant_id,
                "user": self.caller.user.oid,
                "client": self.caller.app_id,
            }
        self.world.book("graph", name, status, **facts)

    def failed(self, error: GraphError) -> Answer:
        body = error_body(self.world, error, self.request_id, self.client_request_id)
        return Answer(error.status, body, error.headers)


def _dispatch(
    context: _Context, caller: Caller, method: str, url: str, headers: dict[str, str], body: Any, *, part: bool = False
) -> Answer:
    """Perform one operation. ``url`` is relative to the version, with its query; header names are lower-case.

    The ledger says which lines were parts of a batch and no call of their own.
    """
    path, _, query = url.partition("?")
    path = unquote(path)
    name = "unknown"
    try:
        for its_method, pattern, its_name, operation in _OPERATIONS:
            found = pattern.fullmatch(path.rstrip("/"))
            if found is None or its_method != method:
                continue
            name = its_name
            call = Call(
                world=context.world,
                cloud=context.cloud,
                caller=caller,
                method=method,
                path=path,
                query=dict(parse_qsl(query, keep_blank_values=True)),
                headers=headers,
                body=body,
                params={key: value for key, value in found.groupdict().items() if value is not None},
            )
            answer = operation(call)
            break
        else:
            answer = context.failed(GraphError(400, "BadRequest", "Resource not found for the segment."))
    except GraphError as error:
        answer = context.failed(error)
    context.book(name, answer.status, **({"part": True} if part else {}))
    return answer


# --- $batch -------------------------------------------------------------------------------------------------------


def _batch_parts(content: Any) -> list[Item]:
    """Return the parts of a well-formed batch; a malformed one is refused as a whole."""
    refused = GraphError(400, "BadRequest", "Invalid batch payload format.")
    parts = content.get("requests") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not parts:
        raise refused
    if len(parts) > MAX_PARTS:
        raise GraphError(400, "BadRequest", f"Number of batch request steps exceeds the maximum value of {MAX_PARTS}.")
    ids: set[str] = set()
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("headers", {}), dict):
            raise refused
        part_id, method, url, after = part.get("id"), part.get("method"), part.get("url"), part.get("dependsOn", [])
        if not isinstance(part_id, str) or not part_id or part_id in ids:
            raise refused
        if not isinstance(method, str) or not isinstance(url, str) or not url.startswith("/"):
            raise refused
        if "body" in part and "content-type" not in {name.lower() for name in part.get("headers", {})}:
            raise refused
        if not isinstance(after, list) or not ids.issuperset(after):
            raise refused  # a part may only wait for parts before it
        ids.add(part_id)
    return parts


def _batch(context: _Context, caller: Caller, content: Any) -> Answer:
    answers: dict[str, Answer] = {}
    throttled = int(context.world.switches["graph_throttled_parts"])
    for number, part in enumerate(_batch_parts(content)):
        headers = {name.lower(): str(value) for name, value in part.get("headers", {}).items()}
        if any(answers[each].status >= 400 for each in part.get("dependsOn", [])):
            message = "The request failed because a request that it depends on failed."
            answers[part["id"]] = context.failed(GraphError(424, "FailedDependency", message))
        elif (fault := _fault(context, caller, part)) is not None:
            answers[part["id"]] = fault
        elif number < throttled:
            wait = {"Retry_After": "2"} if context.world.switches["retry_after"] else {}
            answers[part["id"]] = context.failed(GraphError(429, "TooManyRequests", "Too many requests.", **wait))
        else:
            answers[part["id"]] = _dispatch(
                context, caller, part["method"].upper(), part["url"], headers, part.get("body"), part=True
            )
    responses = [
        {"id": part_id, "status": answer.status, "headers": _part_headers(answer)}
        | ({"body": answer.body} if answer.body is not None else {})
        for part_id, answer in answers.items()
    ]
    if context.world.switches["graph_shuffle"]:
        random.shuffle(responses)
    return Answer(200, {"responses": responses})


def _fault(context: _Context, caller: Caller, part: Item) -> Answer | None:
    """Return what a fault of the wire answers to one part; cut connections and delays are those of the whole batch."""
    method, path = part["method"].upper(), f"/v1.0{part['url'].partition('?')[0]}"
    fault = take(context.world, "graph", method, path, f"{path} {caller.tenant.tenant_id}", answers=True)
    if fault is None or fault.status is None:
        return None
    context.book(f"{method} {path}", fault.status, fault=True, part=True)
    return Answer(fault.status, json.loads(fault.body or "{}"), dict(fault.headers))


def _part_headers(answer: Answer) -> dict[str, str]:
    return answer.headers | ({"Content-Type": "application/json"} if answer.body is not None else {})


# --- wire ---------------------------------------------------------------------------------------------------------


async def _answer(context: _Context, request: web.Request) -> Answer:
    claims = bearer(context.world, request, context.cloud, context.cloud.graph, GRAPH)
    try:
        context.caller = caller = identify(context.world, context.cloud, claims)
        body: Any = None
        if request.can_read_body:
            try:
                body = await request.json()
            except ValueError:
                raise GraphError(400, "BadRequest", "Unable to read JSON request payload.") from None
        path = request.raw_path.removeprefix("/v1.0")
        if path.partition("?")[0] != "/$batch" or request.method != "POST":
            headers = {name.lower(): value for name, value in request.headers.items()}
            return _dispatch(context, caller, request.method, path, headers, body)
        answer = _batch(context, caller, body)
        context.book("batch", answer.status)
    except GraphError as error:
        answer = context.failed(error)
        context.book("refused", answer.status)
    return answer


def routes(world: World) -> list[web.RouteDef]:
    """Return the one route of the Graph host; operations are found by :func:`_dispatch`."""

    async def handler(request: web.Request) -> web.Response:
        context = _Context(world, request)
        answer = await _answer(context, request)
        response = web.Response(status=answer.status, headers=answer.headers)
        if answer.body is not None:
            response.content_type = "application/json"
            response.text = json.dumps(answer.body)
        server = {"ServerInfo": {"DataCenter": "Local", "Slice": "E", "Ring": "1", "ScaleUnit": secrets.token_hex(2)}}
        response.headers["request-id"] = context.request_id
        response.headers["client-request-id"] = context.client_request_id
        response.headers["x-ms-ags-diagnostic"] = json.dumps(server)
        return response

    return [web.route("*", "/v1.0/{rest:.*}", handler)]
