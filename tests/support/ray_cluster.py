"""A Ray cluster of this machine for tests: small nodes, a token, everything ended in the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OBJECT_STORE = 80 << 20  # bytes; Ray's least is 75 MB
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_enable_metrics_collection": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_prestart_worker_first_driver": "0",
}


@contextmanager
def ray_cluster(n_cpus: int = 1) -> Iterator[Any]:
    """ray.cluster_utils.Cluster with a head, which runs no tasks, and a node of n_cpus; token authentication is on."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT | {"RAY_AUTH_TOKEN": secrets.token_hex(24)})
    try:
        from ray._private.authentication_test_utils import reset_auth_token_state
        from ray.cluster_utils import Cluster

        reset_auth_token_state()  # Ray has read the environment when it was imported
        head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            add_node(cluster, n_cpus)
            yield cluster
        finally:
            cluster.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)


def add_node(cluster: Any, n_cpus: int = 1) -> Any:
    return cluster.add_node(num_cpus=n_cpus, object_store_memory=OBJECT_STORE)
