"""The REST API: every operation of the table under its method and path, and their description.

The parameters come from the path, the query and a JSON body; the response is the result. Errors
are `{"error": {"code", "message"}}` with the HTTP status of the code.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from towpath.errors import BadRequest, CommandError
from towpath.http.requests import Site, authenticate, error_response, read_body, running
from towpath.methods.operations import OPERATIONS, Caller, Operation
from towpath.node.node import VERSION


def api_routes(site: Site) -> list[BaseRoute]:
    """Return the routes under `/api/v1`."""
    by_path: dict[str, dict[str, Operation]] = defaultdict(dict)
    for operation in OPERATIONS.values():
        method, path = operation.http
        by_path[path][method] = operation
    routes: list[BaseRoute] = [Route("/openapi.json", _describe)]
    for path, operations in by_path.items():
        routes.append(Route(path, _endpoint(site, operations), methods=list(operations)))
    return routes


def _endpoint(
    site: Site, operations: dict[str, Operation]
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a path, whose operations are given by HTTP method."""

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            return await _perform(site, operations[method], request)
        except CommandError as error:
            return error_response(error)

    return endpoint


async def _perform(site: Site, operation: Operation, request: Request) -> Response:
    node = running(site)
    principal = await authenticate(node, request)
    params = await _params(operation, request)
    caller = Caller(principal=principal, origin=request.headers.get("origin"))
    result = await node.parts.operations.perform(operation, params, caller)
    return Response(result, media_type="application/json")


async def _params(operation: Operation, request: Request) -> Struct:
    """Return an operation's parameters; the path wins over the body, the body over the query."""
    given: dict[str, Any] = {**_query(operation, request), **await read_body(request)}
    given |= request.path_params
    try:
        params: Struct = msgspec.convert(given, operation.params)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None
    return params


def _query(operation: Operation, request: Request) -> dict[str, Any]:
    """Return the parameters of the operation that stand in the query, numbers as numbers."""
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
    """Return the OpenAPI 3.1 description of the API, made from the table of operations."""
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
    method, _ = operation.http
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": (operation.params.__doc__ or "").strip(),
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": result}}},
            "default": {"description": "`{error: {code, message}}`; see the reference of codes"},
        },
    }
    if parameters := list(_describe_parameters(operation)):
        described["parameters"] = parameters
    if method != "GET":
        reference = {"$ref": f"#/components/schemas/{operation.params.__name__}"}
        described["requestBody"] = {"content": {"application/json": {"schema": reference}}}
    return described


def _describe_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    """Yield what stands in the path or the query: of a GET, every parameter."""
    method, path = operation.http
    for field in msgspec.structs.fields(operation.params):
        in_path = f"{{{field.name}}}" in path
        if in_path or method == "GET":
            where = "path" if in_path else "query"
            schema = msgspec.json.schema(field.type)
            yield {"name": field.name, "in": where, "required": field.required, "schema": schema}
