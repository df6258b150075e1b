"""Whether castile's dependencies install from wheels alone, wherever it is said to run.

``python tools/wheels.py``: pip resolves them for each platform and Python without building anything,
and without installing anything; exit status 1 names those for which it can't.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS: Final = {
    **{
        f"Linux, {name}, {machine}": [f"{tag}_{machine}" for tag in tags]
        for name, tags in {
            "glibc": ("manylinux_2_28", "manylinux_2_17", "manylinux2014"),
            "musl": ("musllinux_1_2", "musllinux_1_1"),
        }.items()
        for machine in ("x86_64", "aarch64")
    },
    "macOS, arm64": ["macosx_14_0_arm64", "macosx_11_0_arm64", "macosx_10_15_universal2"],
    "macOS, x86_64": ["macosx_14_0_x86_64", "macosx_10_15_x86_64", "macosx_10_15_universal2"],
    "Windows, x86_64": ["win_amd64"],
}


def resolve(platform: str, python: str, dependencies: list[str]) -> str:
    """What pip says against it; "" where it can be installed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--target", folder]
        command += ["--implementation", "cp", "--python-version", python]
        command += [f"--platform={tag}" for tag in PLATFORMS[platform]]
        done = subprocess.run([*command, *dependencies], capture_output=True, text=True, check=False)
    return done.stderr.strip() or "refused" if done.returncode else ""


def main() -> None:
    """See the module."""
    dependencies = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    cells = [(platform, python) for platform in PLATFORMS for python in PYTHONS]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda cell: resolve(*cell, dependencies), cells))
    for (platform, python), trouble in zip(cells, found, strict=True):
        if trouble:
            print(f"{platform}, Python {python}: {trouble}", file=sys.stderr)
    refused = sum(map(bool, found))
    print(f"{len(cells) - refused} of {len(cells)} platforms and Pythons install castile from wheels alone")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
