"""The server's app behind Ray Serve: as many replicas as there are requests.

    serve run serve_app:app

A replica is the same app as that of `fastgpt-c serve`; a client that goes away ends its text here, too.
"""

from __future__ import annotations

import os
from typing import Any

from ray import serve


class Replica:
    """An ASGI application that opens its model when it starts.

    MODEL      what -m says; the demo model if not set
    N_THREADS  of a replica
    API_KEYS   of which a request must carry one, with commas between; none = no request needs one
    """

    def __init__(self) -> None:
        from fastgpt_c.server.app import make_app
        from fastgpt_c.server.service import Service
        from fastgpt_c.server.settings import Settings

        keys = tuple(filter(None, os.environ.get("API_KEYS", "").split(",")))
        n_threads = int(os.environ.get("N_THREADS", "1"))
        self._service = Service(Settings(hosts=("*",), keys=keys, n_threads=n_threads))
        self._n_threads, self._app = n_threads, make_app(self._service)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        import fastgpt_c

        await receive()
        self._service.open(fastgpt_c.load(os.environ.get("MODEL") or None, n_threads=self._n_threads))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._service.close()
        await send({"type": "lifespan.shutdown.complete"})


def make_replica() -> Replica:
    """Runs in the process of each replica."""
    return Replica()


# A replica computes up to 32 texts together: about so many requests are one's share.
app = serve.deployment(
    serve.ingress(make_replica)(),
    name="fastgpt-c",
    max_ongoing_requests=64,
    ray_actor_options={"num_cpus": int(os.environ.get("N_THREADS", "1"))},
    autoscaling_config={"min_replicas": 1, "max_replicas": int(os.environ.get("MAX_REPLICAS", "8")),
                        "target_ongoing_requests": 16},
).bind()  # fmt: skip
