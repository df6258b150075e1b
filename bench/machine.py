"""The machine that a figure was taken on, and how quiet it was."""

from __future__ import annotations

import os
import platform
import sqlite3
import ssl
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import cryptography.hazmat.backends.openssl as openssl
from lxml import etree

LIBRARIES = ("lxml", "cryptography", "pybase64", "uvicorn", "uvloop", "httptools")


def described(folder: Path) -> dict[str, object]:
    """Processor, system and versions; `folder` is where the stores lie."""
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": sys.version.split()[0],
        "castile": version("castile"),
        **{name: found for name in LIBRARIES if (found := _version(name))},
        "libxml2": ".".join(map(str, etree.LIBXML_VERSION)),
        "openssl": openssl.backend.openssl_version_text(),
        "ssl module": ssl.OPENSSL_VERSION,
        "sqlite": sqlite3.sqlite_version,
        "http server": "httptools" if find_spec("httptools") else "h11",
        "file system": _file_system(folder),
        "fdatasync_us": sync_latency(folder),
        "load_before": round(os.getloadavg()[0], 2),
    }


def sync_latency(folder: Path, count: int = 100) -> dict[str, float]:
    """µs of write and fdatasync of 4 KB each: median and the slowest percent."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(count):
            start = time.perf_counter_ns()
            file.write(os.urandom(4_096))
            file.flush()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter_ns() - start) / 1_000)
    taken.sort()
    return {"median": round(median(taken)), "p99": round(taken[count * 99 // 100])}


def ticks() -> tuple[int, int]:
    """All processor ticks so far, and those that the host took away (Linux; else zeros)."""
    try:
        ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0, 0
    return sum(ticks), ticks[7]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: Path) -> str:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    holding = [mount for mount in mounts if folder.resolve().is_relative_to(mount[0])]
    return max(holding, key=lambda mount: len(mount[0]))[1] if holding else "unknown"
