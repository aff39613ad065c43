"""Writes requirements.lock and constraints.txt: every version that is tested, with and without the
hashes of its files.

They are one list. Versions stay as they are where pyproject.toml allows them; uv finds what is new
(`pip install uv`).

    python scripts/make_lock.py                             # after a change of pyproject.toml
    python scripts/make_lock.py --upgrade-package numpy     # or --upgrade, for all; torch too
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = ("test", "lint", "docs")
"""Those that CI installs. What only the others name has no pin."""
FOR_EDITABLE = ("editables>=0.5",)
"""What hatchling asks for besides, for `pip install -e`."""
LOWEST_PYTHON = "3.10"
NOT_HASHED = ("torch",)
OF_CUDA = ("triton", "cuda-", "nvidia-")
"""Beginnings of names: what torch's own build decides."""
LOCK_HEAD = """\
# Every version that is tested, with its files' hashes, for Python 3.10 and later. Made by
# scripts/make_lock.py, together with constraints.txt. torch is not here, and neither is what its
# CUDA build brings: torch's CPU build and PyPI's have the same version and different hashes.
#
#     pip install --require-hashes --no-deps -r requirements.lock
#     pip install -c constraints.txt torch
#     pip install --no-deps --no-build-isolation -e .
"""
CONSTRAINTS_HEAD = """\
# The versions that lorakit is tested with: pip install -c constraints.txt ...
# Made by scripts/make_lock.py, together with requirements.lock, which has the hashes.
"""


def entries(text: str) -> list[str]:
    """Of a requirements file: each requirement with its hashes (on lines of their own, by a
    backslash)."""
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    return re.findall(r"^\S.*?(?<!\\)$", "\n".join(lines), flags=re.MULTILINE | re.DOTALL)


def without_hashes(entry: str) -> str:
    return entry.split("\\\n")[0].strip()


def name_of(entry: str) -> str:
    return re.sub(r"[-_.]+", "-", entry.split("==")[0]).lower()


def lock_text(found: list[str]) -> str:
    """found: entries with hashes."""
    kept = [entry for entry in found if name_of(entry) not in NOT_HASHED]
    return LOCK_HEAD + "\n".join(kept) + "\n"


def constraints_text(found: list[str]) -> str:
    """found: entries with or without hashes."""
    return CONSTRAINTS_HEAD + "\n".join(without_hashes(entry) for entry in found) + "\n"


def build_requirements() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"\[build-system\]\s+requires = \[(.*?)\]", text, flags=re.DOTALL)
    assert found is not None
    return [*re.findall(r'"(.*?)"', found[1]), *FOR_EDITABLE]


def resolve(options: list[str]) -> list[str]:
    """Entries with hashes for every Python and platform; raises CalledProcessError where uv finds
    no answer."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.txt"
        out.write_text(
            CONSTRAINTS.read_text(encoding="utf-8"), encoding="utf-8"
        )  # uv keeps what is there
        extras = [word for extra in EXTRAS for word in ("--extra", extra)]
        command = [
            "uv",
            "pip",
            "compile",
            "pyproject.toml",
            "-",
            "--universal",
            "--python-version",
            LOWEST_PYTHON,
        ]
        command += [
            *extras,
            "--generate-hashes",
            "--no-annotate",
            "--no-header",
            "--quiet",
            "-o",
            str(out),
            *options,
        ]
        subprocess.run(
            command, cwd=ROOT, input="\n".join(build_requirements()), text=True, check=True
        )
        found = entries(out.read_text(encoding="utf-8"))
    return [entry for entry in found if not name_of(entry).startswith(OF_CUDA)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upgrade", action="store_true", help="of all packages")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME")
    given = parser.parse_args()
    if shutil.which("uv") is None:
        parser.error("uv is not installed: pip install uv")
    options = ["--upgrade"] if given.upgrade else []
    for name in given.upgrade_package:
        options += ["--upgrade-package", name]
    found = resolve(options)
    LOCK.write_text(lock_text(found), encoding="utf-8")
    CONSTRAINTS.write_text(constraints_text(found), encoding="utf-8")


if __name__ == "__main__":
    main()
