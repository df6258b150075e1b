"""A web application that is a client, made before its workers are forked: ``gunicorn --preload``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import castile
from tests.endpoint.pair import FAST, USERS, body

FOLDER = Path(os.environ["SERVED"])
client = castile.Client(
    os.environ["SERVICE"],
    policy=castile.EndpointPolicy.of("1.3"),
    credentials=castile.Username("ada", USERS["ada"]),
    service_certificate=FOLDER / "service.crt",
    store=FOLDER / "client.db",
    settings=FAST,
)
client.call_raw("urn:test/Post", body(0))  # the master has used it already


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Each path is a call of its own, and a key: asked for again it isn't made twice."""
    number = int(environ["PATH_INFO"].strip("/"))
    answer = client.call_raw("urn:test/Post", body(number), key=f"call-{number}")
    start_response("200 OK", [("Content-Type", "text/xml"), ("X-Process", str(os.getpid()))])
    return [answer]
