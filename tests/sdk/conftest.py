"""The one server that the SDK tests of a worker share."""

from collections.abc import Iterator

import pytest

from towpath.testing.server import ServerProcess

pytest.register_assert_rewrite("tests.sdk.contract", "tests.sdk.client")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A real server; each test uses people of its own. Credentials have one second of grace."""
    data = tmp_path_factory.mktemp("sdk") / "data"
    with ServerProcess(data, environment={"TOWPATH_EXPIRY_GRACE": "1"}) as process:
        yield process
