"""Where commands and functions write: never onto what they read or onto a model, whole or not at all, and what is no
file stays what it is."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from command import ENVIRONMENT, FAILURE, OUTSIDE, SCRIPT, TIMEOUT, WRONG_USAGE

import fastgpt_c
from fastgpt_c.checkpoints import resolve
from fastgpt_c.cli.__main__ import main
from fastgpt_c.convert import convert, quantize
from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.io.atomic_files import NEW_SECONDS, atomically, write_text

# Each command that writes, what it reads, and whether it needs a file: one that it can read again.
COMMANDS: dict[str, tuple[str, list[str], bool]] = {
    "score": ("score {texts} -m {model} -o {target}", ["texts", "model"], False),
    "quantize": ("quantize {model} {target} --type f16", ["model"], False),
    "convert": ("convert {checkpoint} -o {target}", ["weights", "config"], False),
    "lens": ("lens --file {prompt} -m {model} --html {target}", ["prompt", "model"], False),
    "page": ("profile ab -m {model} -n 1 --no-roofline --html {target}", ["model"], False),
    "trace": ("profile ab -m {model} -n 1 --no-roofline --trace {target}", ["model"], False),
    "batch": ("batch {requests} {target} -m {model} -n 1", ["requests", "model"], True),
    "cache": ("generate --file {prompt} -m {model} -n 1 --prompt-cache {target}", ["prompt", "model"], True),
}
INPUTS = [(name, source) for name, (_, sources, _) in COMMANDS.items() for source in sources]
TO_STREAMS = [name for name, (_, _, needs_file) in COMMANDS.items() if not needs_file]


@pytest.fixture
def names(alphabet: Path, tmp_path: Path) -> dict[str, Path]:
    """What the commands read; in a folder of its own, so that hard links are possible."""
    folder = tmp_path / "in"
    checkpoint = write_checkpoint(folder / "hf")
    texts, requests, prompt = folder / "texts.jsonl", folder / "requests.jsonl", folder / "prompt.txt"
    model = folder / "model.gguf"
    texts.write_text('{"text": "ab"}\n')
    requests.write_text('{"prompt": "ab"}\n')
    prompt.write_text("ab")
    shutil.copyfile(alphabet, model)
    (tmp_path / "out").mkdir()
    inputs = {"texts": texts, "requests": requests, "model": model, "prompt": prompt, "checkpoint": checkpoint}
    return inputs | {"weights": checkpoint / "model.safetensors", "config": checkpoint / "config.json"}


def words(command: str, names: dict[str, Path], target: str | Path) -> list[str]:
    return COMMANDS[command][0].format(**names, target=target).split(" ")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- Inputs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["itself", "symlink", "hard link", "another way"])
@pytest.mark.parametrize(("command", "source"), INPUTS)
def test_no_input_is_replaced(
    names: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, source: str, link: str
) -> None:
    """By whatever name: one line says so, and the input stays."""
    target, before = tmp_path / "out" / "link", contents(tmp_path / "in")
    if link == "itself":
        target = names[source]
    elif link == "symlink":
        target.symlink_to(names[source])
    elif link == "hard link":
        target.hardlink_to(names[source])
    else:
        target = names[source].parent / ".." / names[source].parent.name / names[source].name
    assert main(words(command, names, target)) in (FAILURE, WRONG_USAGE)
    said = capfd.readouterr().err
    assert said.startswith("fastgpt-c: ") and said.count("\n") == 1 and str(target) in said
    assert contents(tmp_path / "in") == before and target.samefile(names[source])


@pytest.mark.parametrize("command", COMMANDS)
def test_only_models_replace_models(names: dict[str, Path], tmp_path: Path, command: str) -> None:
    """Another model file than the one that is read: only a model goes there."""
    target = tmp_path / "out" / "other.gguf"
    target.write_bytes(b"GGUF, precious")
    replaces = command in ("quantize", "convert")
    assert main(words(command, names, target)) == 0 if replaces else main(words(command, names, target)) > 0
    assert (target.read_bytes() == b"GGUF, precious") != replaces


def test_standard_input_is_an_input(names: dict[str, Path]) -> None:
    """As in `score - -o X <X`; and the trace of a profile is no page."""
    texts, before = names["texts"], names["texts"].read_bytes()
    with texts.open("rb") as stdin:
        command = [*SCRIPT, "score", "-", "-m", str(names["model"]), "-o", str(texts)]
        done = subprocess.run(command, stdin=stdin, capture_output=True, cwd=OUTSIDE, env=ENVIRONMENT, timeout=TIMEOUT)
    assert (done.returncode, texts.read_bytes()) == (WRONG_USAGE, before)
    both = [*words("page", names, texts.parent / "new"), "--trace", str(texts.parent / "new")]
    assert main(both) == WRONG_USAGE and not (texts.parent / "new").exists()


def test_functions_that_write_models(names: dict[str, Path], tmp_path: Path) -> None:
    """quantize, and convert of a file, refuse their own source; a session and a page, any model."""
    model, before = names["model"], names["model"].read_bytes()
    with pytest.raises(UsageError, match="is read, too"):
        quantize(model, model, type="f16")
    with pytest.raises(UsageError, match="is read, too"):
        convert(model, model)
    with pytest.raises(UsageError, match="is a model file"):
        write_text(model, "text")
    with fastgpt_c.load(model) as loaded, loaded.session() as session, pytest.raises(UsageError, match="a model file"):
        session.save(model)
    assert model.read_bytes() == before
    assert contents(tmp_path / "out") == {}


# ---- What is no file --------------------------------------------------------------------------------------


def save(path: Path, model: Path) -> int:
    """Session.save, as a command."""
    with fastgpt_c.load(model) as loaded, loaded.session() as session:
        session.prefill([1, 2])
        try:
            session.save(path)
        except FastGPTError as error:
            print(f"fastgpt-c: {error}", file=sys.stderr)
            return FAILURE
    return 0


def write_by(command: str, names: dict[str, Path], target: Path) -> int:
    return save(target, names["model"]) if command == "save" else main(words(command, names, target))


@pytest.mark.parametrize("command", [*COMMANDS, "save"])
def test_folders_and_sockets_are_refused(
    names: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """In one line that names them; so is a link that leads to itself, and a folder that is not there."""
    out = tmp_path / "out"
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(out)  # the names of sockets are short
        listening.bind("socket")
        (out / "folder").mkdir()
        (out / "loop").symlink_to("loop")
        before = {path: path.lstat().st_mode for path in out.iterdir()}
        for name in ("folder", "socket", "loop", "nowhere/file"):
            assert write_by(command, names, out / name) in (FAILURE, WRONG_USAGE), name
            said = capfd.readouterr().err.splitlines()
            assert len(said) == 1 and said[0].startswith("fastgpt-c: ") and str(out / name) in said[0], said
        assert {path: path.lstat().st_mode for path in out.iterdir()} == before


@pytest.mark.parametrize("command", [*TO_STREAMS, "save"])
def test_pipes_and_devices_are_written_to(names: dict[str, Path], tmp_path: Path, command: str) -> None:
    """A pipe gets what a file would; devices stay devices, and a full one is an error."""
    pipe, file = tmp_path / "out" / "pipe", tmp_path / "out" / "file"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert write_by(command, names, pipe) == write_by(command, names, file) == 0
    reader.join(TIMEOUT)
    (got,) = read
    if command in ("page", "trace"):  # times differ
        assert got[:20] == file.read_bytes()[:20] and len(got) > 1000
    else:
        assert got == file.read_bytes()
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert write_by(command, names, Path("/dev/null")) == 0
    assert Path("/dev/null").is_char_device()
    if Path("/dev/full").exists():
        assert write_by(command, names, Path("/dev/full")) == FAILURE
        assert Path("/dev/full").is_char_device()
    assert set((tmp_path / "out").iterdir()) == {pipe, file}


@pytest.mark.parametrize("command", ["batch", "cache"])
def test_what_is_read_again_must_be_a_file(
    names: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    """Records and a prompt cache are where the next run goes on: no pipe and no device."""
    os.mkfifo(tmp_path / "out" / "pipe")
    for target in (tmp_path / "out" / "pipe", Path("/dev/null"), Path("/dev/full")):
        assert write_by(command, names, target) in (FAILURE, WRONG_USAGE)
        assert str(target) in capfd.readouterr().err
        assert not target.is_file() and target.exists()


@pytest.mark.parametrize("command", [*COMMANDS, "save"])
def test_links_are_followed(names: dict[str, Path], tmp_path: Path, command: str) -> None:
    """A link to nothing yet, and then to a file, stays a link."""
    link, end = tmp_path / "out" / "link", tmp_path / "out" / "end"
    link.symlink_to("end")
    for _ in range(2):
        assert write_by(command, names, link) == 0
        assert link.is_symlink() and end.is_file() and not end.is_symlink() and end.stat().st_size > 50
    assert set((tmp_path / "out").iterdir()) == {link, end}


def test_a_hard_link_keeps_the_old_file(tmp_path: Path) -> None:
    """Only the name that was given gets the new one."""
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    write_text(tmp_path / "b", "new")
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("old", "new")


def test_standard_output_by_name(names: dict[str, Path], tmp_path: Path) -> None:
    """/dev/stdout is a pipe, or a file that somebody else has begun, and goes on."""
    command = [*SCRIPT, *words("score", names, "/dev/stdout")]
    whole = subprocess.run(command, capture_output=True, cwd=OUTSIDE, env=ENVIRONMENT, timeout=TIMEOUT, check=True)
    assert whole.stdout.startswith(b'{"line": 1')
    with (tmp_path / "both").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        subprocess.run(command, stdout=file, cwd=OUTSIDE, env=ENVIRONMENT, timeout=TIMEOUT, check=True)
        file.write(b"after\n")
    assert (tmp_path / "both").read_bytes() == b"before\n" + whole.stdout + b"after\n"


# ---- Failures ---------------------------------------------------------------------------------------------


def limited() -> None:
    """Files of 1000 bytes at most: a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))


@pytest.mark.parametrize("command", ["quantize", "convert", "lens", "page", "trace", "cache"])
def test_a_full_disk_leaves_the_old_file(names: dict[str, Path], tmp_path: Path, command: str) -> None:
    """And nothing else; one line names the file."""
    target = tmp_path / "out" / "target"
    before = b""
    if command in ("quantize", "convert"):
        target.write_bytes(before := b"GGUF, old")
    elif command != "cache":
        target.write_bytes(before := b"old")
    program = [*SCRIPT, *words(command, names, target)]
    environment = ENVIRONMENT | {"PYTHONDONTWRITEBYTECODE": "1"}  # Python would leave half of a compiled module
    done = subprocess.run(
        program, capture_output=True, cwd=OUTSIDE, env=environment, timeout=TIMEOUT, preexec_fn=limited
    )
    said = done.stderr.decode().splitlines()
    assert done.returncode == FAILURE and f"{target}: cannot be written" in said[-1], said
    assert contents(tmp_path / "out") == ({target: before} if before else {})


# A user who may not write into the folder: what is needed is loaded before.
AS_NOBODY = """
import encodings.unicode_escape, encodings.utf_8_sig, os, sys
import fastgpt_c.cli.__main__ as command
import importlib, pkgutil, safetensors.numpy
import fastgpt_c
OPTIONAL = "torch_file", "lm_eval_adapter", "sentencepiece", "tensorflow"
for module in pkgutil.walk_packages(fastgpt_c.__path__, "fastgpt_c."):
    if not module.name.endswith(("__main__", "_fastgpt", *OPTIONAL)):
        importlib.import_module(module.name)
import fastgpt_c.convert.tensorflow
os.environ.pop("HOME", None)
os.setgid(12345)
os.setuid(12345)
for line in sys.stdin.read().splitlines():
    print("status", command.main(line.split(" ")), flush=True)
"""


def as_nobody(*lines: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith(("XDG", "FASTGPT"))}
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY], input="\n".join(map(" ".join, lines)), text=True, capture_output=True,
        cwd=OUTSIDE, env=environment, timeout=TIMEOUT,
    )  # fmt: skip


@pytest.fixture
def public(names: dict[str, Path]) -> Iterator[dict[str, Path]]:
    """The inputs where everybody may read them."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    if not all(place.stat().st_mode & 0o001 for place in resolve.demo_model().parents):
        pytest.skip("another user may not read this installation")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    shutil.copytree(names["model"].parent, folder / "in")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    yield {name: folder / "in" / path.relative_to(names["model"].parent) for name, path in names.items()}
    shutil.rmtree(folder)


def test_a_folder_that_may_not_be_written(public: dict[str, Path]) -> None:
    """One line names the file; nothing is there."""
    out = public["model"].parent.parent / "out"
    out.mkdir(mode=0o755)
    done = as_nobody(*(words(command, public, out / "target") for command in COMMANDS))
    said = done.stderr.splitlines()
    assert done.stdout.count("status 1\n") == len(COMMANDS), (done.stdout, said)
    assert len(said) == len(COMMANDS) and all(str(out / "target") in line for line in said), said
    assert list(out.iterdir()) == []


def test_a_user_without_a_home(public: dict[str, Path]) -> None:
    """As in a container: files need no cache; what needs one is told of FASTGPT_CACHE in one line."""
    generate = ["generate", "a", "-n", "1", "--no-prompt", "--temperature", "0", "-m"]
    lines = [[*generate, str(public["model"])], generate[:-1], ["profile", "a", "-n", "1"]]
    done = as_nobody(*lines, [*generate, str(public["checkpoint"])])
    statuses = [line for line in done.stdout.splitlines() if line.startswith("status")]
    assert statuses == ["status 0"] * 3 + ["status 1"], (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and "FASTGPT_CACHE names a folder" in done.stderr, done.stderr


NO_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
int fsync(int fd) {
    struct stat info;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (fstat(fd, &info) != 0 || !S_ISDIR(info.st_mode)) return real(fd);
    errno = EINVAL;
    return -1;
}
"""


def test_folders_that_cannot_be_synced(names: dict[str, Path], tmp_path: Path) -> None:
    """As those of some network file systems: the files are whole, and that is success."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and LD_PRELOAD")
    (tmp_path / "nosync.c").write_text(NO_SYNC)
    library = tmp_path / "nosync.so"
    subprocess.run([compiler, "-shared", "-fPIC", tmp_path / "nosync.c", "-o", library, "-ldl"], check=True)
    for command in COMMANDS:
        target = tmp_path / "out" / command
        done = subprocess.run(
            [*SCRIPT, *words(command, names, target)], capture_output=True, cwd=OUTSIDE, timeout=TIMEOUT,
            env=ENVIRONMENT | {"LD_PRELOAD": str(library)},
        )  # fmt: skip
        assert (done.returncode, target.is_file()) == (0, True), (command, done.stderr)


# ---- What a killed process leaves -------------------------------------------------------------------------

# Killed, as by kill -9, where a saved session is renamed: the library calls it by way of the procedure linkage table.
DIES_SAVING = """
import os, sys
import fastgpt_c
with fastgpt_c.load(sys.argv[1]) as model, model.session() as session:
    session.prefill([1, 2])
    os.chdir(sys.argv[2])
    session.save("saved")
"""
KILLS = """
#include <signal.h>
int rename(const char *from, const char *to) { (void)from, (void)to; return raise(SIGKILL); }
"""


def test_a_saved_session_that_was_killed_half_way(names: dict[str, Path], tmp_path: Path) -> None:
    """What it leaves goes with the next file that is written into the folder, of whatever kind; not while it is new,
    and not while it is locked, as long as a process writes it."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and LD_PRELOAD")
    out, library = tmp_path / "out", tmp_path / "kills.so"
    (tmp_path / "kills.c").write_text(KILLS)
    subprocess.run([compiler, "-shared", "-fPIC", tmp_path / "kills.c", "-o", library], check=True)
    write_again: list[Callable[[], Any]] = [
        lambda: save(out / "again", names["model"]),
        lambda: write_text(out / "again", "text"),
    ]
    for write in write_again:
        command = [sys.executable, "-c", DIES_SAVING, names["model"], out]
        environment = ENVIRONMENT | {"LD_PRELOAD": str(library)}
        assert subprocess.run(command, cwd=OUTSIDE, env=environment, timeout=TIMEOUT).returncode == -signal.SIGKILL
        (left,) = out.iterdir()
        write()
        assert left.exists()
        os.utime(left, (0, 0))
        with left.open("rb") as locked:
            fcntl.flock(locked, fcntl.LOCK_EX)
            write()
            assert left.exists()
        write()
        assert list(out.iterdir()) == [out / "again"]
        (out / "again").unlink()


def test_a_session_that_is_being_saved_is_locked(names: dict[str, Path], tmp_path: Path) -> None:
    """So nobody takes its file away, however long it takes: seen where it is stopped just before it is renamed."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and LD_PRELOAD")
    out, library = tmp_path / "out", tmp_path / "stops.so"
    (tmp_path / "stops.c").write_text(KILLS.replace("SIGKILL", "SIGSTOP"))
    subprocess.run([compiler, "-shared", "-fPIC", tmp_path / "stops.c", "-o", library], check=True)
    command = [sys.executable, "-c", DIES_SAVING, names["model"], out]
    with subprocess.Popen(command, cwd=OUTSIDE, env=ENVIRONMENT | {"LD_PRELOAD": str(library)}) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            (part,) = out.iterdir()
            os.utime(part, (0, 0))
            write_text(out / "other", "text")
            assert part.exists()
        finally:
            process.kill()
    write_text(out / "other", "text")
    assert list(out.iterdir()) == [out / "other"]


def test_what_looks_like_left_over(tmp_path: Path) -> None:
    """A pipe and a link of such a name hold nobody up; the file at the end of the link stays."""
    (tmp_path / "precious").write_text("x")
    (tmp_path / ".fastgpt-c-a.part").symlink_to("precious")
    os.mkfifo(tmp_path / ".fastgpt-c-b.part")
    os.utime(tmp_path / "precious", (0, time.time() - 2 * NEW_SECONDS))
    write_text(tmp_path / "target", "text")
    assert (tmp_path / "precious").read_text() == "x" and (tmp_path / "target").read_text() == "text"


def test_an_error_in_the_block(tmp_path: Path) -> None:
    """Nothing is left, and the target is as it was."""
    with pytest.raises(ZeroDivisionError), atomically(tmp_path / "target") as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


# ---- Names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["good\0bad", "good\ud800bad"])
def test_names_are_not_cut_off(names: dict[str, Path], tmp_path: Path, bad: str) -> None:
    """C would end a name at a NUL: neither it nor what no file name can hold gets that far."""
    good = tmp_path / "out" / "good"
    with fastgpt_c.load(names["model"]) as model, model.session() as session:
        session.save(good)
        before = contents(tmp_path)
        session.prefill([1])
        shutil.copyfile(names["model"], tmp_path / "good.gguf")
        calls: list[Callable[[], Any]] = [
            lambda: session.save(f"{tmp_path}/out/{bad}"),
            lambda: session.save(tmp_path / "out" / bad),
            lambda: model.load_session(f"{tmp_path}/out/{bad}"),
            lambda: fastgpt_c.load(f"{tmp_path}/{bad.replace('good', 'good.gguf')}"),
            lambda: fastgpt_c.Model(tmp_path / bad.replace("good", "good.gguf")),
            lambda: model.metadata(bad.replace("good", "general.name")),
            lambda: write_text(tmp_path / "out" / bad, "text"),
            lambda: quantize(names["model"], tmp_path / "out" / bad, type="f16"),
        ]
        for call in calls:
            with pytest.raises(UsageError, match=r"'.*(NUL|surrogate)"):
                call()
        (tmp_path / "good.gguf").unlink()
        assert contents(tmp_path) == before


# ---- Memory -----------------------------------------------------------------------------------------------

QUANTIZES = """
import resource, sys
from pathlib import Path
from fastgpt_c.convert import quantize, quantizer
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
quantize(Path(sys.argv[1]), Path(sys.argv[2]), type="f16")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_long_arrays_take_the_memory_of_their_bytes(names: dict[str, Path], tmp_path: Path) -> None:
    """A list of 3,000,000 small numbers, and one of 300,000 empty texts, in a file of a few MB."""
    n_numbers, n_texts = 3_000_000, 300_000
    key = b"x.numbers"
    source, target = tmp_path / "long.gguf", tmp_path / "out" / "target"
    data = names["model"].read_bytes()
    n_keys = int.from_bytes(data[16:24], "little")
    u32, u64 = (lambda n: n.to_bytes(4, "little")), (lambda n: n.to_bytes(8, "little"))
    numbers = u64(len(key)) + key + u32(9) + u32(0) + u64(n_numbers) + bytes(range(250)) * (n_numbers // 250)
    texts = u64(7) + b"x.texts" + u32(9) + u32(8) + u64(n_texts) + bytes(8 * n_texts)
    more = numbers + texts + u64(5) + b"x.pad" + u32(8)
    n_pad = -(len(more) + 8) % 32
    source.write_bytes(data[:16] + u64(n_keys + 3) + more + u64(n_pad) + b"x" * n_pad + data[24:])
    command = [sys.executable, "-c", QUANTIZES, source, target]
    done = subprocess.run(command, capture_output=True, cwd=OUTSIDE, env=ENVIRONMENT, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 15 * source.stat().st_size
    assert numbers in target.read_bytes() and texts in target.read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_large_files_are_judged_by_their_beginning(names: dict[str, Path], tmp_path: Path) -> None:
    """No more is read of 3 GB of zeros than it takes to see that they are no model and no prompt cache."""
    zeros = tmp_path / "zeros.gguf"
    zeros.touch()
    os.truncate(zeros, 3 << 30)
    program = "import resource, sys; from fastgpt_c.cli.__main__ import main; status = main(sys.argv[1:]); "
    program += "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    for arguments in (
        ["generate", "a", "-m", str(zeros), "--no-mmap"],
        ["generate", "ab", "-m", str(names["model"]), "--prompt-cache", str(zeros)],
    ):
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, cwd=OUTSIDE, env=ENVIRONMENT, timeout=TIMEOUT)
        status, kib = map(int, done.stdout.split())
        assert status == FAILURE and kib < 1 << 20 and b"zeros.gguf: " in done.stderr
