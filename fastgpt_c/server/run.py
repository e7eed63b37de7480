"""The life of a server: it listens, loads the model, serves, drains, and ends.

SIGTERM or Ctrl-C lets the requests at work end, and refuses new ones; a second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from fastgpt_c.server.app import make_app
from fastgpt_c.server.errors import unavailable
from fastgpt_c.server.limits import protocol_class
from fastgpt_c.server.service import Service
from fastgpt_c.server.settings import Settings
from fastgpt_c.server.sockets import BACKLOG, open_sockets

if TYPE_CHECKING:
    from fastgpt_c.model import Model

log = logging.getLogger("fastgpt_c.server")

SECONDS_BETWEEN_LOOKS = 0.05
# After the last answer, for clients to take it.
SECONDS_TO_CLOSE = 3.0
# Where requests had to be failed, for their last event to be sent.
SECONDS_TO_FAIL = 1.0


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Server:
    """One process's server.

    settings     see Settings
    load         gives the model; called in a thread, while requests are answered by 503 already
    on_listening called with the sockets, once requests are answered
    on_ready     called with the model, once it serves
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Model],
        *,
        on_listening: Callable[[list[socket.socket]], None] = lambda sockets: None,
        on_ready: Callable[[Model], None] = lambda model: None,
    ) -> None:
        self._settings, self._load = settings, load
        self._on_listening, self._on_ready = on_listening, on_ready
        self._sockets = open_sockets(settings)
        self._n_signals = 0

    def run(self) -> None:
        """Returns when it has ended after a signal.  Raises what load raises."""
        _raise_file_limit()
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._service = service = Service(self._settings)
        self._is_asked_to_end = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        self._uvicorn = _Uvicorn(self._config())
        serving = asyncio.ensure_future(self._uvicorn.serve(sockets=self._sockets))
        loading = self._load_in_thread()
        ending = asyncio.ensure_future(self._is_asked_to_end.wait())
        waited: list[asyncio.Future[Any]] = [loading, ending, serving]
        try:
            while not (self._uvicorn.started or serving.done()):
                await asyncio.sleep(0.001)
            self._on_listening(self._sockets)
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if loading.done() and not ending.done():
                service.open(loading.result())
                self._on_ready(service.model)
            await asyncio.wait(waited[1:], return_when=asyncio.FIRST_COMPLETED)
            await self._drain()
        finally:
            ending.cancel()
            await self._close(serving)

    def _config(self) -> uvicorn.Config:
        settings = self._settings
        return uvicorn.Config(
            make_app(self._service),
            http=protocol_class(settings.limits),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=settings.limits.keep_alive_seconds,  # type: ignore[arg-type]
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.private_key,
        )

    def _load_in_thread(self) -> asyncio.Future[Model]:
        """A thread that does not keep the process alive, as those of executors do."""
        loop = asyncio.get_running_loop()
        loading: asyncio.Future[Model] = loop.create_future()

        def tell(result: Model | None, error: BaseException | None) -> None:
            if loading.done():
                return
            if error is not None:
                loading.set_exception(error)
            elif result is not None:
                loading.set_result(result)

        def work() -> None:
            result, error = None, None
            try:
                result = self._load()
            except BaseException as raised:  # it is raised again where it is waited for
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop may have ended by now
                loop.call_soon_threadsafe(tell, result, error)

        threading.Thread(target=work, name="fastgpt-load", daemon=True).start()
        return loading

    def _on_signal(self, number: int) -> None:
        self._n_signals += 1
        if self._n_signals > 1:
            os._exit(128 + number)
        log.info("%s: the requests at work end, and no new ones begin", signal.Signals(number).name)
        self._service.is_draining = True
        self._is_asked_to_end.set()

    async def _drain(self) -> None:
        """Waits for the requests at work, and fails those that take longer than they may."""
        await self._idle(self._settings.shutdown_seconds)
        if self._service.n_at_work and not self._service.is_loading:
            self._service.link.fail_all(unavailable("the server is stopping", "shutting_down"))
            await self._idle(SECONDS_TO_FAIL)

    async def _idle(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._service.n_at_work and loop.time() < end:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    async def _close(self, serving: asyncio.Future[None]) -> None:
        self._uvicorn.should_exit = True
        _, late = await asyncio.wait([serving], timeout=SECONDS_TO_CLOSE)
        if late:
            for connection in list(self._uvicorn.server_state.connections):
                connection.transport.abort()
            await asyncio.wait([serving], timeout=SECONDS_TO_CLOSE)
        self._service.close()
        if self._settings.uds is not None:
            self._settings.uds.unlink(missing_ok=True)


def _raise_file_limit() -> None:
    """As many connections as the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
