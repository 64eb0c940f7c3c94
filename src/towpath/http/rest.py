"""REST: every method of the table under its route, and the OpenAPI description of them.

A request has the method's parameters in the path, the query and a JSON body; the response is the
method's result. Errors are `{"error": {"code", "message"}}` with the HTTP status of the code.
"""

import functools
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from towpath.errors import BadRequest, CommandError
from towpath.http.requests import Site, authenticate, error_response, read_body, running
from towpath.methods.method import Caller, Method, Params
from towpath.methods.table import METHODS
from towpath.node.node import VERSION


def api_routes(site: Site) -> list[BaseRoute]:
    """Return the routes under `/api/v1`."""
    by_path: dict[str, dict[str, Method[Any]]] = defaultdict(dict)
    for method in METHODS.values():
        verb, path = method.route
        by_path[path][verb] = method
    routes: list[BaseRoute] = [Route("/openapi.json", _describe)]
    for path, by_verb in by_path.items():
        routes.append(Route(path, _endpoint(site, by_verb), methods=list(by_verb)))
    return routes


def _endpoint(
    site: Site, by_verb: dict[str, Method[Any]]
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a path, whose methods are given by HTTP verb."""

    async def endpoint(request: Request) -> Response:
        verb = "GET" if request.method == "HEAD" else request.method
        try:
            return await _call(site, by_verb[verb], request)
        except CommandError as error:
            return error_response(error)

    return endpoint


async def _call(site: Site, method: Method[Any], request: Request) -> Response:
    node = running(site)
    principal = await authenticate(node, request)
    params = await _params(method, request)
    caller = Caller(principal=principal, origin=request.headers.get("origin"))
    result = await node.parts.methods.invoke(method, params, caller)
    return Response(result, media_type="application/json")


async def _params(method: Method[Any], request: Request) -> Params:
    """Return a method's parameters; the path overrides the body, the body overrides the query."""
    given: dict[str, Any] = {**_query(method, request), **await read_body(request)}
    given |= request.path_params
    try:
        return msgspec.convert(given, method.params)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None


def _query(method: Method[Any], request: Request) -> dict[str, Any]:
    """Return the method's parameters from the query, with numbers converted."""
    fields = {field.name: field.type for field in msgspec.structs.fields(method.params)}
    given = {name: value for name, value in request.query_params.items() if name in fields}
    for name, value in given.items():
        try:
            given[name] = msgspec.convert(value, fields[name], strict=False)
        except msgspec.ValidationError as error:
            raise BadRequest(f"{name}: {error}") from None
    return given


async def _describe(request: Request) -> Response:
    return Response(_encoded_openapi(), media_type="application/json")


@functools.cache
def _encoded_openapi() -> bytes:
    """Return the description as JSON, made once: the table of methods does not change."""
    return msgspec.json.encode(openapi())


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of REST, made from the table of methods."""
    types = [item for one in METHODS.values() for item in (one.params, one.result)]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = defaultdict(dict)
    for index, method in enumerate(METHODS.values()):
        verb, path = method.route
        described = _describe_method(method, schemas[2 * index + 1])
        paths[f"/api/v1{path}"][verb.lower()] = described
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


def _describe_method(method: Method[Any], result: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": method.name,
        "summary": (method.params.__doc__ or "").strip(),
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": result}}},
            "default": {"description": "`{error: {code, message}}`; see the reference of codes"},
        },
    }
    if parameters := _parameters(method):
        described["parameters"] = parameters
    if method.route[0] != "GET":
        reference = {"$ref": f"#/components/schemas/{method.params.__name__}"}
        described["requestBody"] = {"content": {"application/json": {"schema": reference}}}
    return described


def _parameters(method: Method[Any]) -> list[dict[str, Any]]:
    """Return the parameters in the path, and for GET those in the query."""
    verb, path = method.route
    described = []
    for field in msgspec.structs.fields(method.params):
        in_path = f"{{{field.name}}}" in path
        if in_path or verb == "GET":
            schema = msgspec.json.schema(field.type)
            where = "path" if in_path else "query"
            described.append(
                {"name": field.name, "in": where, "required": field.required, "schema": schema}
            )
    return described
