"""PyPI `centrifuge-python`, unmodified, against a real server."""

import pytest

from tests.sdk.contract import SdkContract
from tests.sdk.python_client import open_python

pytestmark = pytest.mark.servers


class TestPythonSdk(SdkContract):
    """The contract, as the Python SDK sees it."""

    open = staticmethod(open_python)
