"""Shards as tasks of Ray Core: one task a shard, which Ray places, and runs again where a node dies.

Only numbers of shards and counts go through Ray; input, model and parts are read and written where they are.  A cluster
is never started here: the driver joins one.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any
from urllib.request import urlopen

from fastgpt_c.errors import FastGPTError, UsageError, missing_extra
from fastgpt_c.sharding.commit import Done
from fastgpt_c.sharding.folder import Folder
from fastgpt_c.sharding.merge import done_shards
from fastgpt_c.sharding.plan import Plan, opened
from fastgpt_c.sharding.work import Settings, Worker, is_of_machine

OLDEST_RAY = (2, 52)  # the first with token authentication
AHEAD = 2  # tasks in flight for each that can run
LEAST_IN_FLIGHT = 8
N_TRIES = 5  # of a shard whose machines fail, but do not die
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_FOR_DASHBOARD = 3

WITHOUT_TOKEN = (
    "Ray at {address} has no token authentication: whoever reaches it runs programs on all its nodes (CVE-2023-48022), "
    "and so does a web page in a browser beside it (CVE-2025-62593).  Start its nodes, and this command, with "
    "RAY_AUTH_MODE=token"
)


@dataclass
class Counts:
    """Of a job so far.

    n_shards, n_done, n_failed
                 in all; done, of which n_before were before; failed
    n_at_work    tasks in flight
    n_lines, n_errors, n_tokens
                 of shards that this call ran
    n_nodes, n_cpus
                 of the cluster, that are alive
    """

    n_shards: int
    n_before: int = 0
    n_done: int = 0
    n_failed: int = 0
    n_at_work: int = 0
    n_lines: int = 0
    n_errors: int = 0
    n_tokens: int = 0
    n_nodes: int = 0
    n_cpus: float = 0


def import_ray() -> Any:
    """Raises MissingExtraError without Ray, UsageError where it is too old to have authentication."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # its own library writes on standard error, beside progress
    try:
        import ray
    except ImportError as error:
        raise missing_extra("ray", "--ray") from error
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < OLDEST_RAY:
        raise UsageError(
            f"Ray {ray.__version__} is too old: it has no token authentication, and whoever reaches it runs programs "
            "on all nodes.  Install 2.52 or newer, here and on all nodes:  pip install 'fastgpt-c[ray]'"
        )
    return ray


def connect(address: str, warn: Callable[[str], None]) -> Any:
    """Joins the cluster -> the module ray.  Raises FastGPTError where it cannot, with Ray's words; warns of a cluster
    without authentication."""
    ray = import_ray()
    if ray.is_initialized():
        raise UsageError("this process is a driver of Ray already: run the shards from another one")
    if address in ("", "local"):
        raise UsageError(f"--ray {address!r}: no cluster is started here; give the address of one, or auto")
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray has many, RuntimeError and ConnectionError among them
        words = " ".join((_refusal(address) or str(error)).split())[:600]
        raise FastGPTError(f"Ray at {address} cannot be joined: {words}") from error
    if not _has_tokens(getattr(context, "dashboard_url", "")):
        warn(WITHOUT_TOKEN.format(address=address))
    return ray


def _refusal(address: str) -> str:
    """What a cluster says of our token, if that is why it cannot be joined: ray.init says only that it cannot."""
    from ray.exceptions import AuthenticationError

    try:
        import_module("ray._raylet").GcsClient(address=address)
    except AuthenticationError as error:
        return str(error)
    except Exception:
        pass
    return ""


def _has_tokens(dashboard: str | None) -> bool:
    """Whether the cluster asks for a token: its dashboard says so to everybody.  Where there is none, whether this
    process has shown one, without which such a cluster cannot be joined."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    if not is_token_auth_enabled():
        return False
    try:
        with urlopen(f"http://{dashboard}/api/authentication_mode", timeout=SECONDS_FOR_DASHBOARD) as answer:
            return str(json.load(answer)["authentication_mode"]) == "token"
    except (OSError, ValueError, LookupError, TypeError):
        return True


# ---- A task -------------------------------------------------------------------------------------------------

_workers: dict[tuple[str, Settings], Worker] = {}  # of a process, which runs many tasks


def run_shard(folder_name: str, index: int, settings: Settings) -> dict[str, Any]:
    """What a task does -> an Outcome as a dict, with "of_machine" where another try may succeed.  Never raises
    FastGPTError: Ray would need its class to read it."""
    try:
        key = folder_name, settings
        if key not in _workers:
            for worker in _workers.values():
                worker.close()
            _workers.clear()
            _workers[key] = Worker(*opened(folder_name), settings)
        return asdict(_workers[key].run(index)) | {"of_machine": False}
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return {"index": index, "done": None, "reason": reason, "is_new": True, "of_machine": is_of_machine(error)}


# ---- The driver ---------------------------------------------------------------------------------------------


class Driver:
    """Runs all shards of a plan that are not done.

    on_look     called about once a second with the Counts
    on_failure  called with the number of a shard and why it failed
    """

    def __init__(
        self,
        ray: Any,
        folder: Folder,
        plan: Plan,
        settings: Settings,
        *,
        threads_per_task: int,
        on_look: Callable[[Counts], None],
        on_failure: Callable[[int, str], None],
    ) -> None:
        self._ray, self._folder, self._threads = ray, folder, threads_per_task
        self._settings = replace(settings, n_threads=threads_per_task)
        self._on_look, self._on_failure = on_look, on_failure
        self._task = ray.remote(run_shard).options(
            num_cpus=threads_per_task, max_retries=-1, scheduling_strategy="SPREAD", name="fastgpt-c shard"
        )
        self._flags = done_shards(folder, plan)
        n_done = sum(self._flags)
        self.counts = Counts(len(plan), n_before=n_done, n_done=n_done)
        self._again: deque[int] = deque()
        self._tries: dict[int, int] = {}  # of shards whose machines failed
        self._in_flight: dict[Any, int] = {}

    def run(self) -> Counts:
        """Returns when each shard is done or has failed.  Ctrl-C cancels what is in flight; the same call goes on."""
        left = self._left()
        looked = 0.0
        try:
            while True:
                if time.monotonic() - looked > SECONDS_BETWEEN_LOOKS:
                    self._look()
                    looked = time.monotonic()
                self._fill(left)
                if not self._in_flight:
                    break
                ready, _ = self._ray.wait(list(self._in_flight), timeout=SECONDS_BETWEEN_LOOKS, fetch_local=True)
                for reference in ready:
                    self._take(reference)
        except BaseException:
            for reference in self._in_flight:
                self._ray.cancel(reference, force=True)
            raise
        self._look()
        return self.counts

    def _left(self) -> Iterator[int]:
        return (index for index, is_done in enumerate(self._flags) if not is_done)

    def _fill(self, left: Iterator[int]) -> None:
        """No more in flight than keep the cluster busy: the driver's memory does not grow with the job."""
        most = max(LEAST_IN_FLIGHT, int(AHEAD * self.counts.n_cpus / self._threads))
        while len(self._in_flight) < most:
            index = self._again.popleft() if self._again else next(left, None)
            if index is None:
                break
            self._in_flight[self._task.remote(self._folder.name, index, self._settings)] = index
        self.counts.n_at_work = len(self._in_flight)

    def _take(self, reference: Any) -> None:
        index = self._in_flight.pop(reference)
        try:
            outcome = self._ray.get(reference)
        except Exception as error:  # Ray's own: the worker could not begin, or was killed for its memory
            words = " ".join(str(error).split())[:300]
            outcome = {"done": None, "reason": f"{type(error).__name__}: {words}", "of_machine": True}
        if outcome["done"] is not None:
            self._count(Done(**outcome["done"]), outcome["is_new"])
        elif outcome["of_machine"] and self._tries.get(index, 1) < N_TRIES:
            self._tries[index] = self._tries.get(index, 1) + 1
            self._again.append(index)
        else:
            self.counts.n_failed += 1
            self._on_failure(index, outcome["reason"])

    def _count(self, done: Done, is_new: bool) -> None:
        counts = self.counts
        counts.n_done += 1
        counts.n_errors += done.errors
        if is_new:
            counts.n_lines += done.lines
            counts.n_tokens += done.tokens

    def _look(self) -> None:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        self.counts.n_nodes = len(nodes)
        self.counts.n_cpus = sum(node["Resources"].get("CPU", 0) for node in nodes)
        self._on_look(self.counts)
