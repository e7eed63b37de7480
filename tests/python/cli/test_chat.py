"""The laws of a conversation: what the model reads, when an answer ends, what is forgotten, and what keys do."""

from __future__ import annotations

import os
import pty
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoints import CONFIG, write_checkpoint, write_json
from command import FAILURE, PIPE_CLOSED, TIMEOUT, in_terminal, output_of, run, running
from scripted import ALPHABET, EOS, write_random_model, write_scripted_model

import fastgpt_c
from fastgpt_c.cli.chat import Conversation, conversation_of
from fastgpt_c.cli.interrupt import line_of
from fastgpt_c.convert import convert
from fastgpt_c.errors import ContextFullError


@pytest.fixture(scope="module")
def polite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers every turn with " Hi!" and goes on to play the user; n_ctx 64."""
    return write_scripted_model(tmp_path_factory.mktemp("chat") / "polite.gguf", " Hi!\nUser:")


@pytest.fixture(scope="module")
def polite_model(polite: Path) -> Iterator[fastgpt_c.Model]:
    with fastgpt_c.load(polite) as model:
        yield model


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers have no end, and take a while."""
    path = tmp_path_factory.mktemp("chat") / "talkative.gguf"
    return write_scripted_model(path, ALPHABET, n_ctx=6000, n_layer=6, n_embd=288)


DIALOGPT = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"


@pytest.fixture
def dialogpt(tmp_path: Path) -> Path:
    """A checkpoint with DialoGPT's chat template."""
    folder = write_checkpoint(tmp_path / "hf", {**CONFIG, "n_positions": 64})
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|endoftext|>", "chat_template": DIALOGPT})
    convert(folder, tmp_path / "dialogpt.gguf")
    return folder


# ---- What the model reads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["", "A talk."])
def test_turns_make_one_text(polite_model: fastgpt_c.Model, system: str) -> None:
    """The system text, a blank line, then each turn by name; the last line waits for the answer."""
    conversation = Conversation(polite_model, system, "B", "C")
    conversation.ask("Hello?", 1)
    conversation.answer(" Hi!\n\n ")
    conversation.ask("Who?", 1)
    beginning = f"{system}\n\n" if system else ""
    assert polite_model.decode(conversation.prompt()) == f"{beginning}B: Hello?\nC: Hi!\nB: Who?\nC:"
    assert conversation.stop == ("\nB:",)


def test_turns_of_dialogpt_are_those_of_transformers(dialogpt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ended by the end-of-text token, which nobody can type; another template does not count."""
    transformers = pytest.importorskip("transformers")
    expected = transformers.AutoTokenizer.from_pretrained(dialogpt)
    with fastgpt_c.load(dialogpt.parent / "dialogpt.gguf") as model:
        conversation = conversation_of(model, "", "B", "C")
        texts = ["the he", "Hi!", "a\nb"]
        conversation.ask(texts[0], 1)
        conversation.answer(texts[1])
        conversation.ask(texts[2], 1)
        messages = [{"role": "user", "content": text} for text in texts]
        assert conversation.prompt() == expected.apply_chat_template(messages, return_dict=False)
        assert conversation.stop == ()
        conversation.ask("<|endoftext|>", 1)
        assert conversation.prompt().count(259) == 4
    settings = {"eos_token": "<|endoftext|>", "chat_template": DIALOGPT.replace("eos", "bos")}
    write_json(dialogpt / "tokenizer_config.json", settings)
    convert(dialogpt, dialogpt.parent / "other.gguf")
    with fastgpt_c.load(dialogpt.parent / "other.gguf") as model:
        assert conversation_of(model, "", "B", "C").stop == ("\nB:",)


def test_the_command_chats_with_dialogpt(dialogpt: Path) -> None:
    file = dialogpt.parent / "dialogpt.gguf"
    assert output_of("chat", "-m", file, "-n", "3", "--temperature", "0", stdin=b"h\n").startswith(b"Assistant: ")


def test_nobody_types_a_special_token(polite_model: fastgpt_c.Model) -> None:
    """What looks like one in a turn, an answer or the system text is only text."""
    conversation = Conversation(polite_model, "<|endoftext|>", "B", "C")
    conversation.ask("<|endoftext|>", 1)
    assert EOS not in conversation.prompt()
    assert polite_model.decode(conversation.prompt()).count("<|endoftext|>") == 2


@pytest.mark.parametrize("seed", range(20))
def test_the_oldest_turns_are_forgotten(polite_model: fastgpt_c.Model, seed: int) -> None:
    """An answer always fits; the system text and the newest turns stay, whole, and no turn goes that need not."""
    rng = np.random.default_rng(seed)
    conversation, turns = Conversation(polite_model, "Sys.", "B", "C"), list[str]()
    n_forgotten = 0
    for _ in range(12):
        said, answer, n_answer = "x" * rng.integers(1, 15), "y" * rng.integers(0, 15), int(rng.integers(1, 20))
        conversation.ask(said, n_answer)
        turns.append(f"B: {said}\nC:")
        texts = ["Sys.\n\n" + "".join(turns[i:]) for i in range(len(turns))]
        fits = (len(polite_model.encode(text)) + n_answer <= polite_model.n_ctx for text in texts)
        n_forgotten = max(n_forgotten, next(i for i, fit in enumerate(fits) if fit))
        assert polite_model.decode(conversation.prompt()) == texts[n_forgotten]
        assert len(conversation.prompt()) + n_answer <= polite_model.n_ctx
        conversation.answer(answer)
        turns[-1] += f"{answer}\n"
    assert n_forgotten > 0


@pytest.mark.parametrize(("said", "n_answer"), [("x" * 80, 1), ("x", 64), ("x" * 40, 30)])
def test_a_turn_that_cannot_fit_changes_nothing(polite_model: fastgpt_c.Model, said: str, n_answer: int) -> None:
    """It is refused with the numbers, and the conversation is what it was."""
    conversation = Conversation(polite_model, "", "B", "C")
    conversation.ask("a", 1)
    conversation.answer("b")
    conversation.ask("c", 1)
    before = conversation.prompt()
    with pytest.raises(ContextFullError, match=rf"{n_answer} .* {polite_model.n_ctx}"):
        conversation.ask(said, n_answer)
    assert conversation.prompt() == before


def test_answers_continue_the_transcript(tmp_path: Path) -> None:
    """Each answer is what generate gives for all that was said before, though the session goes on."""
    path, turns = write_random_model(tmp_path / "nonsense.gguf", n_ctx=160), ["Hello the dog", "é?", "And then, why?"]
    options = ["-n", "12", "--temperature", "0"]
    shown = output_of("chat", "-m", path, "--system", "Sys", *options, stdin="\n".join(turns).encode())
    expected, transcript = "", "Sys\n\n"
    with fastgpt_c.load(path) as model:
        for turn in turns:
            transcript += f"User: {turn}\nAssistant:"
            prompt = model.encode(transcript, special=False)
            answer = model.generate(prompt, max_new_tokens=12, temperature=0, stop="\nUser:").text
            transcript += answer.rstrip() + "\n"
            expected += f"Assistant:{answer}\n"
    assert shown.decode() == expected


# ---- The command, with a pipe ------------------------------------------------------------------------------


def test_an_answer_to_every_line(polite: Path) -> None:
    """Empty lines are no turns; an answer ends where the user's next turn would begin, which is not shown."""
    stdin = b"Hello!\n\n   \nWho are you?"
    assert output_of("chat", "-m", polite, "-n", "20", stdin=stdin) == b"Assistant: Hi!\nAssistant: Hi!\n"


def test_the_marker_is_the_users_name(polite: Path) -> None:
    """With other names, "User:" is as good as any text, and -n ends the answer."""
    shown = output_of("chat", "-m", polite, "--user", "Bo", "--assistant", "Al", "-n", "17", stdin=b"Hello!\n")
    assert shown == b"Al: Hi!\nUser: Hi!\nUs\n"


def test_a_conversation_longer_than_the_context(polite: Path) -> None:
    """Many times n_ctx tokens: every turn is answered."""
    shown = output_of("chat", "-m", polite, "--system", "Be kind.", "-n", "10", stdin=b"And then?\n" * 40)
    assert shown == b"Assistant: Hi!\n" * 40


def test_a_line_that_is_too_long(polite: Path) -> None:
    """From a pipe it ends the conversation, as a failure that says what to do; the answers before it stay."""
    result = run("chat", "-m", polite, "-n", "10", stdin=b"Hello!\n" + b"x" * 100 + b"\nHello!\n")
    assert (result.returncode, result.stdout) == (FAILURE, b"Assistant: Hi!\n")
    assert result.stderr.startswith(b"fastgpt-c: ") and result.stderr.count(b"\n") == 1
    assert b"n_ctx of 64" in result.stderr and b"-n" in result.stderr


def test_orders(polite: Path, tmp_path: Path) -> None:
    """/save writes what was said since /reset, also turns that do not fit into the context any more; /exit ends it."""
    file = tmp_path / "talk.txt"
    lines = [b"Forget this", b"/reset", *[b"And then?"] * 9, f"/save {file}".encode(), b"/exit", b"Not this"]
    result = run("chat", "-m", polite, "-n", "10", stdin=b"\n".join(lines))
    assert (result.returncode, result.stdout) == (0, b"Assistant: Hi!\n" * 10)
    assert result.stderr.decode() == f"{file}: the conversation is saved\n"
    assert file.read_text() == "User: And then?\nAssistant: Hi!\n" * 9
    assert b"/reset" in run("chat", "-m", polite, stdin=b"/help\n").stderr


def test_a_conversation_is_not_saved_onto_a_model(polite: Path) -> None:
    """Nor into a folder: one line says why."""
    for place, why in ((polite, b"is a model file"), (polite.parent, b"is a folder")):
        result = run("chat", "-m", polite, stdin=f"/save {place}".encode())
        assert result.returncode == FAILURE and why in result.stderr and result.stderr.count(b"\n") == 1


def test_a_line_that_is_not_utf8(polite: Path) -> None:
    """It is answered like any other."""
    assert output_of("chat", "-m", polite, "-n", "10", stdin=b"caf\xe9\n") == b"Assistant: Hi!\n"


def test_a_reader_that_leaves(talkative: Path) -> None:
    """As with generate: status 141 and not a word."""
    with running("chat", "-m", talkative, "-n", "5000") as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"Hello!\n")
        process.stdin.close()
        assert process.stdout.read(15) == b"Assistant:abcde"
        process.stdout.close()
        assert process.wait(TIMEOUT) == PIPE_CLOSED
        assert process.stderr.read() == b""


# ---- The command, in a terminal ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_the_end_of_a_conversation(polite: Path, key: bytes) -> None:
    """Two turns by name, and at the third either key ends it, with success and a clean line."""
    with in_terminal("chat", "-m", polite, "-n", "20") as terminal:
        terminal.see(b"User: ")
        for _ in range(2):
            terminal.type(b"Hello!\n")
            assert terminal.see(b"User: ") == b"Hello!\r\nAssistant: Hi!\r\nUser: "
        terminal.type(key)
        seen, status = terminal.end()
    assert (status, seen.replace(b"^C", b"").replace(b"^D\b\b", b"")) == (0, b"\r\n")


def test_the_first_line_says_how_to_leave(polite: Path) -> None:
    """And what the demo model can do, where that is the one."""
    for arguments, about_demo in (([], True), (["-m", polite], False)):
        with in_terminal("chat", *arguments) as terminal:
            opening = terminal.see(b"User: ").decode()
            assert "/exit" in opening and "/help" in opening and ("stories" in opening) == about_demo
            terminal.type(b"/exit\n")
            assert terminal.end() == (b"/exit\r\n", 0)


def test_orders_in_a_terminal(polite: Path) -> None:
    """An order that is none is no turn: a line says so."""
    with in_terminal("chat", "-m", polite, "-n", "20") as terminal:
        terminal.see(b"User: ")
        for line, answer in ((b"/quit", b"/help"), (b"/save", b"name of a file"), (b"/help", b"/reset")):
            terminal.type(line + b"\n")
            seen = terminal.see(b"User: ")
            assert answer in seen and b"Assistant:" not in seen
        terminal.type(b"\x04")
        assert terminal.end()[1] == 0


def test_ctrl_c_ends_an_answer(talkative: Path) -> None:
    """The answer stops within its line, it is the user's turn again, and the next answer comes."""
    with in_terminal("chat", "-m", talkative, "-n", "5000") as terminal:
        for _ in range(2):
            terminal.see(b"User: ")
            terminal.type(b"Hello!\n")
            terminal.see(b"Assistant:" + ALPHABET.encode())
            terminal.type(b"\x03")
            rest = terminal.see(b"\r\n").replace(b"^C", b"").strip()
            assert rest == (ALPHABET * 200).encode()[: len(rest)], "not the answer"
            assert len(rest) < 4000, "the answer went on"
        terminal.see(b"User: ")
        terminal.type(b"\x04")
        assert terminal.end()[1] == 0


def test_ctrl_c_while_the_question_is_read(talkative: Path) -> None:
    """Before the first word of an answer, too: the long turn stays unanswered, and the next is answered."""
    with running("chat", "-m", talkative, "-n", "5") as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"x" * 3000 + b"\nHello!\n")
        process.stdin.flush()
        assert process.stdout.read(10) == b"Assistant:"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, stdout, stderr) == (0, b"\nAssistant:abcde\n", b"")


def test_a_long_line_in_a_terminal(polite: Path) -> None:
    """One line says that it does not fit; then it is the user's turn again."""
    with in_terminal("chat", "-m", polite, "-n", "20") as terminal:
        terminal.see(b"User: ")
        terminal.type(b"x" * 100 + b"\n")
        assert b"n_ctx of 64" in terminal.see(b"User: ")
        terminal.type(b"Hello!\n")
        assert terminal.see(b"User: ") == b"Hello!\r\nAssistant: Hi!\r\nUser: "
        terminal.type(b"\x04")
        assert terminal.end()[1] == 0


def test_ctrl_c_that_another_thread_takes() -> None:
    """A signal that does not interrupt the read itself ends the wait for a line, too, and at once."""
    master, slave = pty.openpty()
    nap = threading.Event()
    taker = threading.Thread(target=nap.wait)
    taker.start()  # before SIGINT is blocked here, so that it is not there
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sending = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    too_late = threading.Timer(TIMEOUT / 4, os.write, (master, b"\n"))
    try:
        with os.fdopen(slave) as terminal, pytest.raises(KeyboardInterrupt):
            too_late.start()
            sending.start()
            begin = time.monotonic()
            line_of(terminal)
        assert time.monotonic() - begin < TIMEOUT / 8, "Ctrl-C had to wait for a line"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, usual)
        too_late.cancel()
        too_late.join()
        nap.set()
        os.close(master)
