"""The command line."""

from towpath.errors import MissingExtra

try:
    import rich  # noqa: F401
    import typer  # noqa: F401
    import uvicorn  # noqa: F401
    import uvloop  # noqa: F401
except ImportError as error:
    raise MissingExtra.of("the command line", "serve", error) from error
