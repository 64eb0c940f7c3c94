"""The REST door: every operation of the table under its method and path, and their description.

What goes in is the operation's parameters, from the path, the query and a JSON body; what comes
out is its result. Errors are `{"error": {"code", "message"}}` with the HTTP status of the code.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from towpath.errors import BadRequest, CommandError
from towpath.gateway import VERSION, Gateway
from towpath.http.requests import authenticated, error_response, read_body
from towpath.methods.operations import OPERATIONS, Caller, Operation


def api_routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the routes under `/api/v1`."""
    by_path: dict[str, dict[str, Operation]] = defaultdict(dict)
    for operation in OPERATIONS.values():
        method, path = operation.http
        by_path[path][method] = operation
    routes: list[BaseRoute] = [Route("/openapi.json", _describe)]
    for path, operations in by_path.items():
        routes.append(Route(path, _handler(gateway, operations), methods=list(operations)))
    return routes


def _handler(
    gateway: Gateway, operations: dict[str, Operation]
) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            return await _perform(gateway, operations[method], request)
        except CommandError as error:
            return error_response(error)

    return handle


async def _perform(gateway: Gateway, operation: Operation, request: Request) -> Response:
    house, principal = await authenticated(gateway, request)
    given: dict[str, Any] = {**_query(operation, request), **await read_body(request)}
    given |= request.path_params
    try:
        params = msgspec.convert(given, operation.params)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None
    caller = Caller(principal=principal, origin=request.headers.get("origin"))
    result = await house.parts.operations.perform(operation, params, caller)
    return Response(result, media_type="application/json")


def _query(operation: Operation, request: Request) -> dict[str, Any]:
    """Return the query's parameters that the operation has, numbers as numbers."""
    fields = {field.name: field.type for field in msgspec.structs.fields(operation.params)}
    given = {name: value for name, value in request.query_params.items() if name in fields}
    for name, value in given.items():
        try:
            given[name] = msgspec.convert(value, fields[name], strict=False)
        except msgspec.ValidationError as error:
            raise BadRequest(f"{name}: {error}") from None
    return given


async def _describe(request: Request) -> Response:
    return JSONResponse(openapi())


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of this door, made from the table of operations."""
    types = [item for one in OPERATIONS.values() for item in (one.params, one.result)]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = defaultdict(dict)
    for index, operation in enumerate(OPERATIONS.values()):
        method, path = operation.http
        paths[f"/api/v1{path}"][method.lower()] = _describe_operation(
            operation, schemas[2 * index + 1]
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Towpath", "version": VERSION},
        "security": [{"bearer": []}],
        "paths": dict(paths),
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe_operation(operation: Operation, result: dict[str, Any]) -> dict[str, Any]:
    method, path = operation.http
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": (operation.params.__doc__ or "").strip(),
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": result}}},
            "default": {"description": "`{error: {code, message}}`; see the reference of codes"},
        },
    }
    parameters = []
    for field in msgspec.structs.fields(operation.params):
        in_path = f"{{{field.name}}}" in path
        if in_path or method == "GET":
            schema = msgspec.json.schema(field.type)
            where = "path" if in_path else "query"
            parameters.append(
                {"name": field.name, "in": where, "required": field.required, "schema": schema}
            )
    if parameters:
        described["parameters"] = parameters
    if method != "GET":
        reference = {"$ref": f"#/components/schemas/{operation.params.__name__}"}
        described["requestBody"] = {"content": {"application/json": {"schema": reference}}}
    return described
