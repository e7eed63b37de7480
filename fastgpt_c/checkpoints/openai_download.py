"""Fetch a GPT-2 as OpenAI published it: seven files a size, from OpenAI's own store.

    https://openaipublic.blob.core.windows.net/gpt-2/models/124M/hparams.json

A file is complete when its size is the one that the server names, and its checksum the one that is known here or that
the server names.  What is not complete is called NAME.part, beside it NAME.part.etag, and goes on where it stopped as
long as the server still has the same file.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from fastgpt_c.convert import TENSORFLOW_FILES
from fastgpt_c.errors import ModelFileError, UsageError, missing_extra

SIZES = ("124M", "355M", "774M", "1558M")
STORE = "https://openaipublic.blob.core.windows.net/gpt-2/models"

# The same for all sizes.
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte


def download(size: str, folder: Path, *, progress: bool = False) -> Path:
    """The folder folder/size with OpenAI's files of that size, fetched as far as they are not there.

    FASTGPT_OPENAI_STORE names another store than OpenAI's, with the same paths.  progress shows a bar a file on stderr.
    Raises ModelFileError; then the same call goes on where this one stopped.
    """
    size = "124M" if size == "117M" else size  # as OpenAI counted at first
    if size not in SIZES:
        raise UsageError(f"{size!r} is not one of OpenAI's sizes: {', '.join(SIZES)}")
    store = os.environ.get("FASTGPT_OPENAI_STORE") or STORE
    target = folder / size
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in TENSORFLOW_FILES:
            if not (target / name).exists():
                _fetch(f"{store}/{size}/{name}", target / name, progress=progress)
    except HTTPError as error:
        raise ModelFileError(f"{error.url}: the server says {error.code} {error.reason}") from error
    except (URLError, HTTPException, OSError, ValueError) as error:  # ValueError: what is no URL
        raise ModelFileError(
            f"{store}/{size}: the download stopped: {error}\nRun the same command again: it goes on from there"
        ) from error
    return target


def _fetch(url: str, target: Path, *, progress: bool) -> None:
    part, etag_file = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.etag")
    with _request(url, part, etag_file) as response:
        resumed = response.status == 206
        done = part.stat().st_size if resumed else 0
        md5 = _md5(response.headers.get("Content-MD5"), target.name)
        expected = done + _length(response.headers.get("Content-Length"), target.name)
        etag_file.write_text(response.headers.get("ETag") or "", encoding="utf-8")
        with part.open("ab" if resumed else "wb") as file, _bar(target.name, done, expected, progress) as bar:
            for chunk in _chunks(response):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if part.stat().st_size < expected:
        raise OSError(f"{target.name} ends after {part.stat().st_size:,} of {expected:,} bytes")
    etag_file.unlink()
    _check(part, target.name, md5)
    part.replace(target)


def _length(content_length: str | None, name: str) -> int:
    """-1 where the server does not say it."""
    if content_length is None:
        return -1
    if not (content_length.isascii() and content_length.isdecimal() and len(content_length) < 19):
        raise OSError(f"{name}: the server names a length that is none: {content_length[:40]!r}")
    return int(content_length)


def _md5(content_md5: str | None, name: str) -> bytes:
    """Empty where the server does not say it."""
    try:
        digest = base64.b64decode(content_md5 or "", validate=True)
    except ValueError:
        digest = b"?"
    if len(digest) not in (0, hashlib.md5(usedforsecurity=False).digest_size):
        raise OSError(f"{name}: the server names a checksum that is none: {(content_md5 or '')[:40]!r}")
    return digest


def _request(url: str, part: Path, etag_file: Path) -> AbstractContextManager[HTTPResponse]:
    """The whole file, or what is missing of it if it is still the one of which part is the beginning."""
    headers = {}
    if part.exists() and etag_file.exists() and (etag := etag_file.read_text(encoding="utf-8")):
        headers = {"Range": f"bytes={part.stat().st_size}-", "If-Range": etag}
    try:
        return closing(urlopen(Request(url, headers=headers), timeout=TIMEOUT))
    except HTTPError as error:
        if error.code != 416:  # nothing is missing, or the file there is shorter now
            raise
        return closing(urlopen(url, timeout=TIMEOUT))


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(CHUNK):
        yield chunk


def _check(part: Path, name: str, md5: bytes) -> None:
    """Raises ModelFileError, and deletes part, where the content is not what it should be."""
    known = SHA256.get(name)
    with part.open("rb") as file:
        digest = hashlib.sha256() if known else hashlib.md5(usedforsecurity=False)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    expected = bytes.fromhex(known) if known else md5
    if expected and digest.digest() != expected:
        part.unlink()
        raise ModelFileError(f"{name}: the checksum is {digest.hexdigest()}, not {expected.hex()}; it was deleted")


def _bar(name: str, done: int, total: int, progress: bool) -> AbstractContextManager[Any]:
    if not progress:
        return nullcontext(_NoBar())
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise missing_extra("tf", "Downloading from OpenAI") from error
    bar: AbstractContextManager[Any] = tqdm(
        desc=name, initial=done, total=max(total, 0) or None, unit="B", unit_scale=True
    )
    return bar


class _NoBar:
    def update(self, n: int) -> None:
        """Shows nothing."""
