"""The model of a job: the same bytes on every machine, found there or fetched once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastgpt_c.checkpoints.resolve import resolve
from fastgpt_c.errors import FastGPTError
from fastgpt_c.io.atomic_files import atomically, write_text
from fastgpt_c.io.cache_dir import cache_dir
from fastgpt_c.sharding.places import input_file, is_address, naming, open_range

BLOCK = 8 << 20


@dataclass(frozen=True)
class ModelFile:
    """name    what -m says: a path that all machines see, an address of a store, a name; None = the demo model
    sha256  of the GGUF file
    """

    name: str | None
    sha256: str

    @property
    def identity(self) -> dict[str, Any]:
        return asdict(self)

    def local(self, name: str | None = None, *, progress: bool = False) -> Path:
        """The file on this machine, fetched into the cache where it is in a store.  name goes before self.name.

        Raises FastGPTError where it is not the one of the plan, and what resolve and the store raise.
        """
        name = name or self.name
        path = _fetched(name, self.sha256) if name and is_address(name) else resolve(name, progress=progress)
        found = sha256_of(path)
        if found != self.sha256:
            raise FastGPTError(
                f"{path}: is not the model of the plan: its SHA-256 begins with {found[:12]}, not {self.sha256[:12]}; "
                "give the same file with -m"
            )
        return path


def model_file(name: str | None, *, progress: bool = False) -> tuple[ModelFile, Path]:
    """What a plan says of a model, and where it is here."""
    if name and is_address(name):
        path = _fetched(name, None)
    else:
        path = resolve(name, progress=progress)
        if name and Path(name).expanduser().exists():
            name = str(Path(name).expanduser().absolute())
    return ModelFile(name, sha256_of(path)), path


def sha256_of(path: Path) -> str:
    """Of a file's bytes; remembered in the cache while size, time and place stay the same."""
    found = path.stat()
    key = f"{path.resolve()} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"
    return _sha256_of(str(path), key)


@lru_cache(maxsize=16)
def _sha256_of(path: str, key: str) -> str:
    note = cache_dir() / "sha256" / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(note.read_text())["sha256"])
    digest = hashlib.sha256()
    with naming(path), Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    with suppress(OSError, FastGPTError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps({"sha256": digest.hexdigest()}))
    return digest.hexdigest()


# ---- From a store ------------------------------------------------------------------------------------------


def _fetched(address: str, sha256: str | None) -> Path:
    """The file in the cache, in a folder named after its content.  sha256 None = not known yet."""
    basename = address.partition("?")[0].rpartition("/")[2]
    models = cache_dir() / "models"
    with _alone(models / ".lock"):
        if sha256 is not None and (models / sha256 / basename).is_file():
            return models / sha256 / basename
        file, digest = input_file(address), hashlib.sha256()
        with (
            naming(str(models)),
            atomically(models / basename) as part,
            open_range(address, 0, file.size) as source,
            part.open("wb") as out,
        ):
            while block := source.read(BLOCK):
                digest.update(block)
                out.write(block)
        target = models / digest.hexdigest() / basename
        with naming(str(target)):
            target.parent.mkdir(exist_ok=True)
            (models / basename).replace(target)
        return target


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process of this machine at a time; where files cannot be locked, each for itself."""
    with naming(str(lock)):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
