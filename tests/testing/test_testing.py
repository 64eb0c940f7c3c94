"""What `towpath.testing` itself offers."""

import importlib
import subprocess
import sys

import pytest

from towpath import testing


def test_names_are_imported_on_first_use() -> None:
    """The package imports no module of its own until a name is used; then it is that of the module.

    In a process of its own, because other tests use the names.
    """
    code = """if True:
        import importlib, sys
        from towpath import testing
        assert not [name for name in sys.modules if name.startswith("towpath.testing.")]
        for name in testing.__all__:
            module = importlib.import_module("towpath.testing." + testing._MODULES[name])
            assert getattr(testing, name) is getattr(module, name), name
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_list_of_names_is_the_table() -> None:
    """What is exported can be imported and is listed; no name is hidden by a module's."""
    assert testing.__all__ == sorted(testing._MODULES)
    assert set(testing.__all__) <= set(dir(testing))
    assert not set(testing.__all__) & set(testing._MODULES.values())


def test_an_unknown_name_is_no_attribute() -> None:
    """A misspelt name fails as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'GatewayClient'"):
        _ = importlib.import_module("towpath.testing").GatewayClient
