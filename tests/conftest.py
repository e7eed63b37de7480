"""Models that the tests share.  Everything is made once a run, in pytest's temporary folder."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium
from models import Tiny, write_random_gguf
from paths import VECTORS
from scripted import ALPHABET, write_random_model, write_scripted_model

import fastgpt_c
from fastgpt_c.convert import convert

CHECKPOINTS = sorted(config.parent for config in VECTORS.glob("*/config.json"))


@pytest.fixture(scope="session", params=CHECKPOINTS, ids=lambda folder: folder.name)
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """Each checkpoint of tests/vectors in turn: a folder as transformers saves it, and golden.npz."""
    return Path(request.param)


@pytest.fixture(scope="session")
def tiny(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """Each of these checkpoints, converted to F32 and loaded."""
    path = tmp_path_factory.mktemp("tiny") / f"{checkpoint.name}.gguf"
    convert(checkpoint, path)
    with np.load(checkpoint / "golden.npz") as golden, fastgpt_c.load(path) as model:
        yield Tiny(model, dict(golden), path)


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Two and a bit times as many positions as a context computes together (n_batch 512)."""
    path = tmp_path_factory.mktemp("long") / "long.gguf"
    with fastgpt_c.load(write_random_gguf(path, n_layer=2, n_head=2, n_embd=18, n_ctx=1100, n_vocab=97)) as model:
        yield model


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """A full context takes this one tenths of a second, so that something can happen meanwhile."""
    path = tmp_path_factory.mktemp("slow") / "slow.gguf"
    with fastgpt_c.load(write_random_gguf(path, n_layer=6, n_head=4, n_embd=256, n_ctx=1400, n_vocab=64)) as model:
        yield model


@pytest.fixture(scope="session")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that recites the alphabet, again and again; n_ctx 64."""
    return write_scripted_model(tmp_path_factory.mktemp("scripted") / "alphabet.gguf", ALPHABET)


@pytest.fixture(scope="session")
def alphabet_model(alphabet: Path) -> Iterator[fastgpt_c.Model]:
    with fastgpt_c.load(alphabet) as model:
        yield model


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fastgpt_c.Model]:
    """Nonsense of an odd n_ctx that depends on every token before."""
    with fastgpt_c.load(write_random_model(tmp_path_factory.mktemp("random") / "nonsense.gguf", n_ctx=23)) as model:
        yield model


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, where there is one."""
    with chromium() as running:
        yield running


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[fastgpt_c.Session]]:
    """Every session that models make from now on."""
    made: list[weakref.ref[fastgpt_c.Session]] = []
    make = fastgpt_c.Model.session

    def session(self: fastgpt_c.Model, *args: Any, **kwargs: Any) -> fastgpt_c.Session:
        new = make(self, *args, **kwargs)
        made.append(weakref.ref(new))
        return new

    monkeypatch.setattr(fastgpt_c.Model, "session", session)
    return made
