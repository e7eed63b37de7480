"""fastgpt-c serve: OpenAI's API over HTTP, and a page to write with and look inside."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastgpt_c.cli import common, control_vectors
from fastgpt_c.cli.interrupt import ending_at_once
from fastgpt_c.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from fastgpt_c.model import Model
    from fastgpt_c.server.settings import Settings

KEY_VARIABLE = "FASTGPT_API_KEY"

EPILOG = f"""\
examples:
  fastgpt-c serve
      the bundled demo model; open http://127.0.0.1:8000 in a browser
  fastgpt-c serve -m gpt2 --port 9000
  curl http://127.0.0.1:8000/v1/completions -d '{{"prompt": "Once upon a time", "max_tokens": 20}}'
      from another terminal; clients of OpenAI take http://127.0.0.1:8000/v1 as their base URL
  {KEY_VARIABLE}=secret fastgpt-c serve --host 0.0.0.0 --allowed-host gpt.example.org
      for other machines, which need the key

SIGTERM or Ctrl-C lets the requests at work end, and a second one ends the process at once.  /openapi.json has every
field.
"""


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="serve OpenAI's API and a page over HTTP",
        description="Serves a model over HTTP as OpenAI's API does, and at / a page to write with and look inside.",
        epilog=EPILOG,
    )
    _add_address_options(parser)
    _add_access_options(parser)
    _add_engine_options(parser)
    _add_limit_options(parser)
    common.add_kv_type_option(parser)
    common.add_deterministic_option(parser)
    common.add_model_options(parser)
    parser.set_defaults(run=run)


def _add_address_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where")
    group.add_argument("--host", default="127.0.0.1", metavar="NAME", help="address to listen on (127.0.0.1)")
    group.add_argument("--port", type=int, default=8000, metavar="N", help="port; 0 = any that is free (8000)")
    group.add_argument("--uds", type=Path, metavar="FILE", help="listen on this socket file instead of a port")
    group.add_argument("--ssl-certfile", type=Path, metavar="FILE", help="certificate, for https")
    group.add_argument("--ssl-keyfile", type=Path, metavar="FILE", help="its private key")


def _add_access_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may ask")
    group.add_argument(
        "--api-key-file", type=Path, metavar="FILE",
        help=f"keys of which a request must carry one, one a line; or give one in the variable {KEY_VARIABLE}",
    )  # fmt: skip
    group.add_argument(
        "--no-key", action="store_true", help="listen on an address that others reach, and ask nobody for a key"
    )
    group.add_argument(
        "--allowed-host", action="append", default=[], metavar="NAME",
        help="a name besides localhost under which clients may ask for this server; * = any; repeatable",
    )  # fmt: skip
    group.add_argument(
        "--cors-origin", action="append", default=[], metavar="URL",
        help="pages of this origin may use the server, such as https://example.org; repeatable",
    )  # fmt: skip
    group.add_argument("--model-name", metavar="NAME", help="what the API calls the model (the file's own name)")
    group.add_argument(
        "--chat-template", type=Path, metavar="FILE", help="Jinja template of chats (the model's own, or a plain one)"
    )
    group.add_argument("--log-text", action="store_true", help="write prompts and texts into the log")


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it computes")
    common.add_batching_options(group)
    control_vectors.add_named_option(group)


def _add_limit_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument("--max-queue", type=int, default=128, metavar="N", help="texts that may wait for a slot (128)")
    group.add_argument(
        "--max-queue-tokens", type=int, metavar="N", help="tokens that may wait, prompts and new ones (no limit)"
    )
    group.add_argument("--request-timeout", type=float, metavar="S", help="seconds a request may take (no limit)")
    group.add_argument(
        "--shutdown-timeout", type=float, default=30.0, metavar="S",
        help="seconds that requests at work get to end after SIGTERM (30)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    _check(args)
    with ending_at_once():
        try:
            from fastgpt_c.server.run import Server
            from fastgpt_c.server.sockets import shown_address
        except ImportError as error:
            if (error.name or "").startswith("fastgpt_c"):
                raise
            raise missing_extra("serve", "the server") from error
    settings = _settings(args)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

    def say(text: str) -> None:
        print(f"fastgpt-c: {text}", file=sys.stderr, flush=True)

    def listening(sockets: list[socket.socket]) -> None:
        for opened in sockets:
            say(f"listening on {shown_address(opened, tls=settings.certificate is not None)}")

    def ready(model: Model) -> None:
        say(f"{common.title(model)} is ready")

    server = Server(settings, lambda: common.load_model(args), on_listening=listening, on_ready=ready)
    server.run()
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises UsageError for options that do not go together."""
    if (args.ssl_certfile is None) != (args.ssl_keyfile is None):
        raise UsageError("--ssl-certfile and --ssl-keyfile belong together: give both or none")
    for name, least in (("port", 0), ("max_queue", 0), ("max_queue_tokens", 0), ("shutdown_timeout", 0)):
        value = getattr(args, name)
        if value is not None and not value >= least:
            raise UsageError(f"--{name.replace('_', '-')} is {value}, less than {least}")
    if args.port > 65535:
        raise UsageError(f"--port is {args.port}, more than 65535")
    if args.request_timeout is not None and not args.request_timeout > 0:
        raise UsageError(f"--request-timeout is {args.request_timeout:g}, not more than 0")


def _settings(args: argparse.Namespace) -> Settings:
    from fastgpt_c.server.security import is_loopback
    from fastgpt_c.server.settings import Limits, Settings
    from fastgpt_c.server.sockets import is_inherited

    keys = _keys(args)
    is_private = args.uds is not None or is_inherited() or is_loopback(args.host)
    if not keys and not is_private and not args.no_key:
        raise UsageError(
            f"--host {args.host} is for other machines, too, and nobody needs a key: give one in {KEY_VARIABLE} or "
            "with --api-key-file, or say --no-key"
        )
    return Settings(
        host=args.host,
        port=args.port,
        uds=args.uds,
        certificate=args.ssl_certfile,
        private_key=args.ssl_keyfile,
        keys=keys,
        hosts=tuple(args.allowed_host),
        origins=tuple(args.cors_origin),
        model_name=args.model_name,
        template=None if args.chat_template is None else common.read_text(args.chat_template, "the chat template"),
        log_text=args.log_text,
        shutdown_seconds=args.shutdown_timeout,
        max_batch=args.max_batch,
        max_tokens_in_flight=args.max_tokens_in_flight,
        deterministic=args.deterministic,
        n_threads=args.threads,
        kv_type=args.kv_type,
        prefill_chunk=args.prefill_chunk,
        prefix_cache=args.prefix_cache,
        control_vectors=control_vectors.named_control_vectors_of(args),
        limits=Limits(
            request_seconds=args.request_timeout, max_queue=args.max_queue, max_queue_tokens=args.max_queue_tokens
        ),
    )


def _keys(args: argparse.Namespace) -> tuple[str, ...]:
    from fastgpt_c.server.security import clean_keys

    lines = [os.environ.get(KEY_VARIABLE, "")]
    if args.api_key_file is not None:
        lines += common.read_text(args.api_key_file, "the file of keys").splitlines()
    keys = clean_keys(lines)
    if args.api_key_file is not None and not keys:
        raise UsageError(f"{args.api_key_file}: has no key in it")
    return keys
