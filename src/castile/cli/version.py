"""What ``castile --version`` says."""

from __future__ import annotations

import platform
import sqlite3
from importlib.metadata import version

from cryptography.hazmat.backends.openssl import backend
from lxml import etree

from castile.versions import SOAP, WSA, WSRM, WSSC, WST


def text() -> str:
    """Versions of castile and its libraries, then the editions that it speaks."""
    libxml2 = ".".join(map(str, etree.LIBXML_VERSION))
    libraries = (
        f"Python {platform.python_version()}",
        f"lxml {version('lxml')} (libxml2 {libxml2})",
        f"cryptography {version('cryptography')} ({backend.openssl_version_text()})",
        f"SQLite {sqlite3.sqlite_version}",
    )
    editions = [row.name for table in (SOAP, WSA, WST, WSSC, WSRM) for row in table.values()]
    return "\n".join((f"castile {version('castile')}", ", ".join(libraries), ", ".join(editions)))
