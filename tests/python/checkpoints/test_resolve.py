"""Laws of names: what exists is used, a checkpoint is converted once, the rest comes from the hub, or says why not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hub_server
import numpy as np
import pytest
from checkpoints import CONFIG, random_tensors, write_checkpoint, write_json
from gguf import GGUFReader

from fastgpt_c.checkpoints import resolve
from fastgpt_c.convert import convert
from fastgpt_c.errors import ModelFileError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTGPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cached_files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


# ---- Local names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FASTGPT_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"FASTGPT_CACHE": "~/b"}, "/home/me/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/fastgpt-c"),
        ({"FASTGPT_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/fastgpt-c"),
        ({}, "/home/me/.cache/fastgpt-c"),
    ],
)
def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str):
    monkeypatch.delenv("FASTGPT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for key, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(key, value)
    assert resolve.cache_dir() == Path(expected)


def test_a_file_is_itself(tmp_path: Path):
    file = tmp_path / "gpt2"
    file.write_bytes(b"GGUF")
    assert resolve.resolve(file) == resolve.resolve(str(file)) == file


@pytest.mark.parametrize(
    ("name", "is_path"),
    [
        ("gpt2", False),
        ("124M", False),
        ("openai-community/gpt2-medium", False),
        ("org/model.v1", False),
        ("here/model", True),
        ("./gpt2", True),
        ("../gpt2", True),
        ("~/gpt2", True),
        ("/gpt2", True),
        ("gpt2/", True),
        ("a/b/c", True),
        ("a\\b", True),
        ("model.gguf", True),
        ("org/MODEL.GGUF", True),
        ("model.safetensors", True),
        ("", True),
    ],
)
def test_what_looks_like_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_path: bool):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve.looks_like_path(name) == is_path


@pytest.mark.parametrize("name", ["./gpt2", "model.gguf", "~nobody-has-this-name/x", Path("gpt2"), "x" * 5000 + "/"])
def test_a_path_that_does_not_exist_is_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "download", lambda *_, **__: pytest.fail("asked the network"))
    with pytest.raises(ModelFileError):
        resolve.resolve(name)


# ---- Checkpoints, converted once ---------------------------------------------------------------------------


def test_a_checkpoint_is_converted_once_while_unchanged(tmp_path: Path, cache: Path):
    """Touching what the converter does not read changes nothing; another spelling of the path is the same folder."""
    folder = write_checkpoint(tmp_path / "hf")
    first = resolve.resolve(folder)
    written = first.stat()
    (folder / "log.jsonl").write_text("{}")
    again = resolve.resolve(str(folder / ".." / "hf"))
    assert again == first
    assert (again.stat().st_ino, again.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    convert(folder, tmp_path / "direct.gguf")
    assert first.read_bytes() == (tmp_path / "direct.gguf").read_bytes()
    assert cached_files(cache) == [first]


@pytest.mark.parametrize(
    "file",
    ["config.json", "model.safetensors", "merges.txt", "new tokenizer_config.json", "new generation_config.json"],
)
def test_a_changed_checkpoint_is_converted_again_and_the_old_file_goes(tmp_path: Path, cache: Path, file: str):
    folder, other = write_checkpoint(tmp_path / "hf"), resolve.resolve(write_checkpoint(tmp_path / "other"))
    first = resolve.resolve(folder)
    if file.startswith("new "):
        write_json(folder / file[4:], {})
    else:
        os.utime(folder / file, ns=(0, time.time_ns() + 10**9))
    second = resolve.resolve(folder)
    assert second != first
    assert sorted(cached_files(cache)) == sorted([second, other])


def test_changed_weights_reach_the_converted_file(tmp_path: Path, cache: Path):
    tensors = random_tensors()
    folder = write_checkpoint(tmp_path / "hf", tensors=tensors)
    resolve.resolve(folder)
    tensors["wte.weight"][5, 6] = 42
    write_checkpoint(folder, tensors=tensors)
    assert GGUFReader(resolve.resolve(folder)).tensors[0].data[5, 6] == 42


@pytest.mark.parametrize(("dtype", "file_type"), [("f32", 0), ("f16", 1), ("bf16", 32), ("mixed", 0)])
def test_the_cached_file_keeps_the_type_of_the_checkpoint(tmp_path: Path, cache: Path, dtype: str, file_type: int):
    """Matrices of two types are widened to f32, so that none is rounded."""
    tensors = random_tensors(dtype="bf16" if dtype == "mixed" else dtype)
    if dtype == "mixed":
        tensors["h.0.mlp.c_fc.weight"] = tensors["h.0.mlp.c_fc.weight"].astype(np.float16)
    reader = GGUFReader(resolve.resolve(write_checkpoint(tmp_path / "hf", tensors=tensors)))
    assert reader.fields["general.file_type"].contents() == file_type


def test_several_at_once_share_one_file(tmp_path: Path, cache: Path):
    folder = write_checkpoint(tmp_path / "hf")
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(resolve.resolve, [folder] * 8))
    assert cached_files(cache) == list(paths)


def test_a_refused_checkpoint_leaves_nothing_in_the_cache(tmp_path: Path, cache: Path):
    with pytest.raises(ModelFileError, match="mish"):
        resolve.resolve(write_checkpoint(tmp_path / "hf", {**CONFIG, "activation_function": "mish"}))
    with pytest.raises(ModelFileError, match=r"has no config\.json"):
        resolve.resolve(cache.parent)
    assert cached_files(cache) == []


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTGPT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelFileError, match="FASTGPT_CACHE"):
        resolve.resolve(write_checkpoint(tmp_path / "hf"))


# ---- The hub -----------------------------------------------------------------------------------------------

# A position table of 12 MB: larger than the pieces in which huggingface_hub counts what it has.
BIG = {**CONFIG, "n_positions": 84_000}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("repository"), BIG)
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "training_args.json").write_text("not wanted")
    return folder


@pytest.fixture
def server(repository: Path) -> Iterator[hub_server.Hub]:
    with hub_server.serve("someone/tiny", repository) as hub:
        yield hub


class User:
    """A user with an empty home: each call is a new process, since huggingface_hub reads its settings at import."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        self.environment |= {"HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": endpoint}
        self.home = home
        self.prelude = ""

    def runs(self, call: str, **environment: str) -> subprocess.CompletedProcess[str]:
        program = (
            f"{self.prelude}from fastgpt_c.checkpoints import resolve\n"
            "from fastgpt_c.errors import FastGPTError\n"
            f"try: print(resolve.{call})\n"
            "except FastGPTError as error: print(type(error).__name__, error)\n"
        )
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, env=self.environment | environment, cwd=self.home, capture_output=True, text=True, timeout=120
        )

    def gets(self, call: str, **environment: str) -> Path:
        done = self.runs(call, **environment)
        path = Path(done.stdout.strip())
        assert path.exists(), done
        return path

    def is_told(self, call: str, **environment: str) -> str:
        """The text of the ModelFileError."""
        done = self.runs(call, **environment)
        assert done.stdout.startswith("ModelFileError "), done
        return done.stdout


@pytest.fixture
def user(tmp_path: Path, server: hub_server.Hub) -> User:
    return User(tmp_path, server.url)


WANTED = {"config.json", "README.md", "model.safetensors", "vocab.json", "merges.txt"}


def test_a_dropped_connection_is_resumed_and_nothing_is_fetched_twice(
    user: User, server: hub_server.Hub, repository: Path
):
    """One process sees the drop and goes on from there; later ones fetch nothing; the last one has no network."""
    server.drop_after["model.safetensors"] = 11_000_000
    folder = user.gets("download('someone/tiny')")
    assert (folder / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()
    ranges = [header for method, path, header in server.requests if path.endswith("model.safetensors") and header]
    assert len(ranges) == 1
    assert 10_000_000 <= int(ranges[0].removeprefix("bytes=").removesuffix("-")) <= 11_000_000
    assert {path.name for path in folder.iterdir()} == WANTED

    server.requests.clear()
    model = user.gets("resolve('someone/tiny')")
    assert server.fetched() == []
    assert GGUFReader(model).fields["general.name"].contents() == "someone/tiny"
    assert model.is_relative_to(user.home / ".cache" / "fastgpt-c")

    server.requests.clear()
    assert user.gets("resolve('someone/tiny')", HF_HUB_OFFLINE="1") == model
    assert server.requests == []
    assert user.gets("resolve('someone/tiny')", HF_ENDPOINT="http://127.0.0.1:9") == model


# Dies, as if killed, when huggingface_hub pauses before its second attempt.
DIES = """
import os, time
time.sleep = lambda seconds: os._exit(7)
from fastgpt_c.checkpoints import resolve
resolve.download("someone/tiny")
"""


def test_a_killed_download_goes_on_with_the_files_that_are_missing(
    user: User, server: hub_server.Hub, repository: Path
):
    server.drop_after["model.safetensors"] = 1000
    done = subprocess.run([sys.executable, "-c", DIES], env=user.environment, cwd=user.home, timeout=120)
    assert done.returncode == 7
    complete = {path.name for path in user.home.glob("hf/hub/models--someone--tiny/snapshots/*/*")}
    assert "config.json" in complete
    assert "model.safetensors" not in complete
    server.requests.clear()
    folder = user.gets("download('someone/tiny')")
    assert (folder / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()
    assert set(server.fetched()) == WANTED - complete


def test_short_names_are_openai_s(user: User):
    """They are looked up on the hub under OpenAI's organisation."""
    sizes = {"124M": "gpt2", "117M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}
    assert {short: f"openai-community/{name}" for short, name in sizes.items()} == resolve.SIZES
    assert "openai-community/gpt2-xl: no such file" in user.is_told("resolve('1558M')")


def test_what_the_hub_refuses_is_explained(user: User, server: hub_server.Hub):
    unknown = user.is_told("resolve('nobody/nothing')")
    assert "nobody/nothing: no such file or folder here, and no such repository at " + server.url in unknown
    assert "ask for access at " + server.url in user.is_told("resolve('gated/model')")
    offline = user.is_told("resolve('someone/tiny')", HF_HUB_OFFLINE="1")
    assert "not in the local cache, and HF_HUB_OFFLINE is set" in offline
    unreachable = user.is_told("resolve('someone/tiny')", HF_ENDPOINT="http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in unreachable


def test_other_repositories_are_refused_before_their_weights_are_fetched(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "repository", {**CONFIG, "model_type": "llama"})
    with hub_server.serve("someone/tiny", folder) as server:
        user = User(tmp_path, server.url)
        assert 'model_type = "llama" is not implemented' in user.is_told("download('someone/tiny')")
        (folder / "config.json").unlink()
        text = user.is_told("download('someone/tiny')", HF_HOME=str(tmp_path / "another"))
        assert "someone/tiny: has no config.json" in text
        assert set(server.fetched()) == {"config.json"}


def test_a_repository_without_safetensors_is_refused(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "repository")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with hub_server.serve("someone/tiny", folder) as server:
        user = User(tmp_path, server.url)
        user.prelude = "import sys; sys.modules['torch'] = None\n"  # as if it were not installed
        assert "PyTorch itself reads it safely:  pip install torch" in user.is_told("download('someone/tiny')")
        assert "pytorch_model.bin" not in server.fetched()
        (folder / "pytorch_model.bin").unlink()
        user.prelude = "import sys, importlib.util; sys.modules['torch'] = importlib.util\n"  # as if it were
        text = user.is_told("download('someone/tiny')", HF_HOME=str(tmp_path / "b"))
        assert "has neither model.safetensors nor pytorch_model.bin" in text


def test_progress_goes_to_stderr_when_asked_for(user: User):
    quiet = user.runs("download('someone/tiny')", HF_HOME=str(user.home / "a"))
    assert quiet.stderr == ""
    shown = user.runs("download('someone/tiny', progress=True)", HF_HOME=str(user.home / "b"))
    assert "100%" in shown.stderr
    assert len(shown.stdout.splitlines()) == 1


def test_without_the_extra_the_error_has_the_command(tmp_path: Path):
    program = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from fastgpt_c.checkpoints import resolve\nresolve.resolve('org/name')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert "MissingExtraError" in done.stderr
    assert "pip install 'fastgpt-c[hub,convert]'" in done.stderr
