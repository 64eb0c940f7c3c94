"""The gateway of `--app module:name`."""

import importlib
import os
import sys

from towpath.errors import ConfigurationError
from towpath.gateway import Gateway


def load_gateway(path: str) -> Gateway:
    """Import a gateway named as module:name, looking in the current directory too.

    Raises:
        ConfigurationError: there is none.
    """
    module_name, _, name = path.partition(":")
    if not module_name or module_name.startswith("."):
        raise ConfigurationError(f"--app {path}: name your gateway as module:name")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), name or "gateway")
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigurationError(f"--app {path}: there is no module {error.name}") from None
    except SystemExit as error:
        reason = f"{module_name} exits when it is imported ({error.code!r})"
        raise ConfigurationError(f"--app {path}: {reason}") from None
    except AttributeError:
        raise ConfigurationError(f"--app {path}: {module_name} has no {name}") from None
    if not isinstance(found, Gateway):
        raise ConfigurationError(f"--app {path}: {name} is a {type(found).__name__}, no Gateway")
    return found
