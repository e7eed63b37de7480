"""What the operator of a server decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastgpt_c.engine.control_vector import ControlVector

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a client may ask for, and how long it may take.

    max_body           bytes of a request's body
    max_depth          arrays and objects of JSON within each other
    max_header_bytes   of the request line and all header fields; max_header_fields their number
    head_seconds       until a request's head is complete, from its first byte or from the connection
    body_seconds       until its body is
    stall_seconds      that a reader may take nothing while max_unread bytes wait for it
    keep_alive_seconds that a connection may be idle between two requests
    request_seconds    from a request's body to the end of its answer; None = as long as it takes
    max_queue          texts that may wait for a slot
    max_queue_tokens   their tokens, those that they may generate included
    max_choices        texts of one request
    max_inputs         texts of one request for embeddings
    max_inspected      tokens that are scored or inspected at once
    """

    max_body: int = 4 * MIB
    max_depth: int = 32
    max_header_bytes: int = 16 << 10
    max_header_fields: int = 64
    head_seconds: float = 30.0
    body_seconds: float = 30.0
    stall_seconds: float = 30.0
    max_unread: int = 256 << 10
    keep_alive_seconds: float = 75.0
    request_seconds: float | None = None
    max_queue: int = 128
    max_queue_tokens: int | None = None
    max_choices: int = 1024
    max_inputs: int = 2048
    max_inspected: int = 512


@dataclass(frozen=True)
class Settings:
    """host, port     where to listen, unless uds names a socket file, or the service manager has opened a socket
    certificate, private_key
                   files for TLS
    keys           of which a request must carry one; none = no request needs one
    hosts          names besides this machine's own under which the server may be asked for; "*" = any
    origins        of web pages that may use it
    model_name     what it calls its model; None = the file's name for it
    template       of chats, in Jinja; None = the model file's, or a plain one
    log_text       prompts and texts may stand in the log
    shutdown_seconds
                   that texts at work get to end
    max_batch, max_tokens_in_flight, deterministic, n_threads, kv_type, prefill_chunk, prefix_cache
                   of the engine, see batching.live_engine.LiveEngine
    control_vectors
                   by the names under which requests choose them
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    model_name: str | None = None
    template: str | None = None
    log_text: bool = False
    shutdown_seconds: float = 30.0
    max_batch: int = 32
    max_tokens_in_flight: int | None = None
    deterministic: bool = False
    n_threads: int | None = None
    kv_type: str = "auto"
    prefill_chunk: int | None = None
    prefix_cache: int | None = None
    control_vectors: Mapping[str, ControlVector] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
