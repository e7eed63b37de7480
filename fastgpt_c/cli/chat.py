"""fastgpt-c chat: a conversation in turns.

GPT-2 knows no roles, so the conversation is one text that it continues:

    SYSTEM

    User: what was said
    Assistant: what was answered
    User: ...
    Assistant:

A file whose chat template is DialoGPT's gets what that was trained on, instead: no names, and every turn ended by the
end-of-text token.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fastgpt_c.cli import common, control_vectors
from fastgpt_c.cli.interrupt import line_of
from fastgpt_c.errors import ContextFullError, FastGPTError

if TYPE_CHECKING:
    from fastgpt_c.engine.reader import Reader
    from fastgpt_c.generation.options import Options
    from fastgpt_c.model import Model

# Without the spaces between words: {% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}
DIALOGPT = b"{%formessageinmessages%}{{message.content}}{{eos_token}}{%endfor%}"

EPILOG = """\
examples:
  fastgpt-c chat -m ./my-finetuned-gpt2 --system "A talk between a child and a wise owl." --assistant Owl
  printf 'Hello!\\nWho are you?\\n' | fastgpt-c chat

Ctrl-C ends an answer; at your turn it ends the conversation, and so does Ctrl-D.

"""

# What a turn may be instead of something said; shown by /help, and by --help.
ORDERS = """\
orders, as a line of their own:
  /help       show these
  /reset      forget all turns
  /save FILE  write the conversation to FILE
  /exit       end it; so do Ctrl-D, and Ctrl-C at your turn
"""

DEMO = "The demo model knows children's stories alone, and answers few questions: try -m with a model made for talks."
LEAVE = "/exit or Ctrl-D ends the conversation, /help shows what else there is."


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "chat",
        help="talk in turns",
        description="A conversation in turns.  An answer ends where the model begins to write your next turn; when the "
        "context is full, the oldest turns are forgotten.",
        epilog=EPILOG + ORDERS,
    )
    parser.add_argument("--system", default="", metavar="TEXT", help="a text that always stands before the turns")
    parser.add_argument("--user", default="User", metavar="NAME", help="what your turns begin with (User)")
    parser.add_argument("--assistant", default="Assistant", metavar="NAME", help="what answers begin with (Assistant)")
    parser.add_argument("-n", "--max-new-tokens", type=int, metavar="N", help="tokens an answer (100)")
    common.add_kv_type_option(parser)
    common.add_deterministic_option(parser)
    common.add_prompt_cache_option(parser)
    control_vectors.add_options(parser)
    common.add_model_options(parser)
    common.add_sampling_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    vector = control_vectors.control_vector_of(args)
    with common.load_model(args) as model:
        from fastgpt_c.generation.options import Options

        common.settle_defaults(args, model)

        conversation = conversation_of(model, args.system, args.user, args.assistant)
        options = Options(
            max_new_tokens=args.max_new_tokens,
            stop=conversation.stop,
            control_vector=vector,
            **common.sampling_of(args),
        )
        with common.reader_of(args, model) as reader:
            if sys.stdin.isatty():
                print(*filter(None, [args.model is None and DEMO, LEAVE]), sep="\n", file=sys.stderr, flush=True)
            for said in _user_turns(args.user):
                order, _, rest = said.partition(" ")
                if order == "/exit":
                    break
                try:
                    if not _obeys(conversation, order, rest.strip()):
                        conversation.ask(said, options.max_new_tokens)
                        _print_answer(conversation, reader, options)
                except (ContextFullError, OrderError) as error:
                    if not sys.stdin.isatty():
                        raise
                    print(f"fastgpt-c: {error}", file=sys.stderr)  # and the conversation goes on
    return 0


class OrderError(FastGPTError):
    """A line that begins with a slash cannot be obeyed."""


def _obeys(conversation: Conversation, order: str, argument: str) -> bool:
    """Does what a line such as "/reset" asks for; False where it is something said."""
    if order == "/help":
        print(ORDERS, end="", file=sys.stderr)
    elif order == "/reset":
        conversation.reset()
    elif order == "/save":
        _save(conversation, argument)
    elif re.fullmatch(r"/[a-z]+", order) and sys.stdin.isatty():
        raise OrderError(f"there is no {order}; /help shows what there is")
    else:
        return False
    return True


def _save(conversation: Conversation, name: str) -> None:
    from fastgpt_c.io.atomic_files import write_text

    if not name:
        raise OrderError("/save wants the name of a file behind it")
    try:
        write_text(Path(name).expanduser(), conversation.transcript())
    except (FastGPTError, RuntimeError) as error:
        raise OrderError(str(error)) from error
    print(f"{name}: the conversation is saved", file=sys.stderr)


def conversation_of(model: Model, system: str, user: str, assistant: str) -> Conversation:
    """As the file's chat template wants it.  Templates other than DialoGPT's are not for GPT-2, and not run."""
    template = model.metadata("tokenizer.chat_template")
    ended = template is not None and b"".join(template.split()) == DIALOGPT and model.eos_token is not None
    return (EndedConversation if ended else Conversation)(model, system, user, assistant)


class Conversation:
    """The turns so far, and the prompt that they make.

    stop   what ends an answer besides the end-of-text token
    label  what an answer is printed behind
    """

    def __init__(self, model: Model, system: str, user: str, assistant: str) -> None:
        self.model = model
        self.stop: tuple[str, ...] = (f"\n{user}:",)
        self.label = f"{assistant}:"
        self._system, self._user, self._assistant = system, user, assistant
        self._turns: list[tuple[str, ...]] = []  # (said, answered); the last one may have no answer yet
        self._forgotten: list[tuple[str, ...]] = []

    def ask(self, said: str, n_answer: int) -> None:
        """Adds what the user said, and forgets the oldest turns until an answer of n_answer tokens fits.

        Raises ContextFullError where it cannot fit; then nothing has changed.
        """
        turns = [*self._turns, (said,)]
        while len(self._encoded(turns)) + n_answer > self.model.n_ctx:
            if len(turns) == 1:
                raise ContextFullError(
                    f"the system text, your turn and {n_answer} tokens of answer exceed the model's n_ctx of "
                    f"{self.model.n_ctx}; say it shorter, or lower -n"
                )
            del turns[0]
        self._forgotten += self._turns[: len(self._turns) + 1 - len(turns)]
        self._turns = turns

    def answer(self, text: str) -> None:
        """Adds what the model answered."""
        self._turns[-1] += (text,)

    def reset(self) -> None:
        """Forgets all turns."""
        self._turns, self._forgotten = [], []

    def transcript(self) -> str:
        """The conversation for people, with the turns that the model has forgotten."""
        beginning = f"{self._system}\n\n" if self._system else ""
        return beginning + "".join(map(self._text, self._forgotten + self._turns))

    def prompt(self) -> list[int]:
        """Token ids of the whole."""
        return self._encoded(self._turns)

    def _encoded(self, turns: list[tuple[str, ...]]) -> list[int]:
        """What people type is never taken for a special token."""
        beginning = f"{self._system}\n\n" if self._system else ""
        return self.model.encode(beginning + "".join(map(self._text, turns)), special=False)

    def _text(self, turn: tuple[str, ...]) -> str:
        said, *answers = turn
        return f"{self._user}: {said}\n{self._assistant}:" + "".join(f"{answer.rstrip()}\n" for answer in answers)


class EndedConversation(Conversation):
    """DialoGPT's: what was said and answered, each with the end-of-text token behind it (Zhang et al. 2020, arXiv
    1911.00536); the system text counts as said."""

    def __init__(self, model: Model, system: str, user: str, assistant: str) -> None:
        super().__init__(model, system, user, assistant)
        self.stop = ()
        self.label = f"{assistant}: "

    def _encoded(self, turns: list[tuple[str, ...]]) -> list[int]:
        texts = [*filter(None, [self._system]), *(text for turn in turns for text in turn)]
        assert self.model.eos_token is not None
        return [token for text in texts for token in (*self.model.encode(text, special=False), self.model.eos_token)]


def _user_turns(user: str) -> Iterator[str]:
    """Lines from standard input, until it ends or Ctrl-C."""
    asks = sys.stdin.isatty()
    while True:
        try:
            if asks:
                print(f"{user}: ", end="", flush=True)
            line = line_of(sys.stdin) if asks else sys.stdin.readline()
        except KeyboardInterrupt:
            line = ""
        if not line:
            if asks:
                print()
            return
        if said := line.removeprefix("\ufeff").strip():  # a file in a pipe may begin with a byte order mark
            yield said


def _print_answer(conversation: Conversation, reader: Reader, options: Options) -> None:
    from fastgpt_c.generation.text_generation import TextGeneration

    generation = TextGeneration(conversation.model, conversation.prompt(), options, reader)
    pieces: list[str] = []
    print(conversation.label, end="", flush=True)
    try:
        for piece in generation:
            pieces.append(piece)
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print(flush=True)
    conversation.answer("".join(pieces))
