"""The connection of a client: how long heads may be, and how slow a client may send and read.

httptools parses heads of any length and knows no time, so this counts bytes and fields, and sets timers.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fastgpt_c.server.errors import HTTPError
from fastgpt_c.server.settings import Limits


class LimitedProtocol(HttpToolsProtocol):
    """A connection within limits; made into a class of its own by protocol_class."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=self.limits.max_unread, low=self.limits.max_unread // 4)
        self._refusal: HTTPError | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._in_head = False
        self._n_bytes = self._n_fields = 0
        self._head: asyncio.TimerHandle | None = None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_timer("_head")
        self._drop_timer("_stall")
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._head is None and self._is_idle():
            self._await_head()
        before = self._n_bytes
        super().data_received(data)
        # A header field is counted when it is complete: what is not, here.
        if self._in_head and not self.transport.is_closing():
            self._n_bytes = max(self._n_bytes, before + len(data))
            if self._n_bytes > self.limits.max_header_bytes:
                self._refuse(self._too_long())

    # ---- Heads ----

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._n_bytes = self._n_fields = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._n_fields += 1
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._drop_timer("_head")
        super().on_headers_complete()

    def _count(self, n: int) -> None:
        """Raises where the head is too long, which the parser reports as bad data."""
        self._n_bytes += n
        if self._n_bytes > self.limits.max_header_bytes or self._n_fields > self.limits.max_header_fields:
            self._refusal = self._too_long()
            raise self._refusal

    def _too_long(self) -> HTTPError:
        limits = self.limits
        return HTTPError(
            431, f"the head of a request may have {limits.max_header_bytes} bytes and {limits.max_header_fields} fields"
        )

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.limits.head_seconds, self._on_slow_head)

    def _on_slow_head(self) -> None:
        self._head = None
        if self._in_head:
            self._refuse(HTTPError(408, f"the head of the request took more than {self.limits.head_seconds:g} s"))
        elif not self.transport.is_closing():
            self.transport.close()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed, or is too long."""
        self._refuse(self._refusal or HTTPError(400, "this is no HTTP request"))

    def _refuse(self, error: HTTPError) -> None:
        """Answers with an error and ends the connection; in the middle of another answer it only ends it."""
        self._drop_timer("_head")
        if self.transport.is_closing():
            return
        if not self._is_idle():
            self.transport.abort()
            return
        body = error.encoded()
        head = STATUS_LINE[error.status] + (
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        )
        self.transport.write(head + body)
        self.transport.close()

    # ---- Readers ----

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._drop_timer("_stall")

    def _watch_reader(self) -> None:
        n_waiting = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self.limits.stall_seconds, self._check_reader, n_waiting)

    def _check_reader(self, n_before: int) -> None:
        self._stall = None
        if self.transport.get_write_buffer_size() < n_before:
            self._watch_reader()
        else:
            self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        """An idle connection is closed; one that has not taken its answer in all that time is cut."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _drop_timer(self, name: str) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, name, None)
        if timer is not None:
            timer.cancel()
        setattr(self, name, None)


def protocol_class(limits: Limits) -> type[Any]:
    """A protocol with these limits, as uvicorn takes it."""
    return type("Protocol", (LimitedProtocol,), {"limits": limits})
