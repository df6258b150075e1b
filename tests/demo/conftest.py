"""One kept run of each edition, for every test that looks at what a run leaves."""

from __future__ import annotations

import pytest

from tests.demo.runs import Run, demo


@pytest.fixture(scope="session", params=["1.3", "2005"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The default run with renewals, kept."""
    folder = tmp_path_factory.mktemp(f"demo-{request.param}")
    return demo(folder, "--edition", request.param, "--seed", "5", "--renew-every", "15", keep=True)
