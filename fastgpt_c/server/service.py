"""What the endpoints share: the model once it is loaded, its engine, and where the server is in its life."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from starlette.requests import Request

from fastgpt_c.errors import UsageError
from fastgpt_c.generation.completion import Completion
from fastgpt_c.generation.prompt import Prompt
from fastgpt_c.server.chat_template import ChatTemplate
from fastgpt_c.server.engine_link import EngineLink
from fastgpt_c.server.errors import unavailable
from fastgpt_c.server.metrics import Metrics
from fastgpt_c.server.settings import Settings
from fastgpt_c.server.side_work import SideWork

if TYPE_CHECKING:
    from fastgpt_c.model import Model

log = logging.getLogger("fastgpt_c.server")


class Service:
    """settings, metrics; and once open has been called: model, model_name, link, side, template, created.

    is_loading, is_draining
              before, and after
    n_at_work requests whose answers are on their way
    preparing a thread in which long prompts are encoded
    """

    model: Model
    link: EngineLink
    side: SideWork
    template: ChatTemplate

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.preparing = ThreadPoolExecutor(1, thread_name_prefix="fastgpt-prepare")
        self.is_loading, self.is_draining = True, False
        self.n_at_work = 0
        self.created = int(time.time())

    def open(self, model: Model) -> None:
        """Requests for the model are served from now on.  In the event loop; raises FastGPTError, MemoryError."""
        for name, vector in self.settings.control_vectors.items():
            try:
                vector.check(model)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error
        self.model = model
        self.model_name = self.settings.model_name or model.name or model.path.stem
        self.template = ChatTemplate(model, self.settings.template)
        self.side = SideWork(model, self.settings)
        self.link = EngineLink(model, self.settings, self.metrics, asyncio.get_running_loop())
        self.link.engine.start()
        self.is_loading = False

    def close(self) -> None:
        """Ends the threads; requests at work get an error."""
        self.preparing.shutdown(wait=False, cancel_futures=True)
        if not self.is_loading:
            self.link.stop()
            self.side.stop()

    def check_ready(self, max_seconds: float | None = None) -> None:
        """Raises HTTPError 503 where requests cannot be served: while it loads or drains, or, if max_seconds says so,
        where a step takes longer."""
        if self.is_draining:
            raise unavailable("the server is stopping", "shutting_down")
        if self.is_loading:
            raise unavailable("the model is being loaded", "loading")
        if not self.link.engine.is_alive:
            raise unavailable("the engine has ended", "engine_dead")
        if max_seconds is not None and self.link.is_stuck(max_seconds):
            raise unavailable(f"no step has ended for {max_seconds:g} s", "stuck")

    def client_of(self, request: Request) -> str:
        """Whom the engine is fair to: a key's owner, or an address."""
        key = request.headers.get("authorization", "")
        if self.settings.keys:
            return hashlib.sha256(key.encode()).hexdigest()
        return request.client.host if request.client else ""

    def log_texts(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> None:
        """Where the operator has asked for it."""
        if self.settings.log_text:
            log.info("prompts %r, texts %r", list(prompts), [completion.text for completion in completions])
