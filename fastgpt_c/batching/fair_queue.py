"""Jobs that wait for a slot: fair between clients, first come within one; nobody waits for ever.

The client that has had the least work done is the next one.  Work is counted in tokens, those of prompts and those
reserved for new text; what was reserved and not used is given back.  A client that had nothing to do does not save up
for later: when it comes back it starts with the others.  (Sheng et al. 2024, "Fairness in Serving Large Language
Models".)  Where the next job finds no room, smaller ones of other clients may pass it, but only so often.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastgpt_c.batching.request_state import RequestState

# A job that has been passed so often by others, for which there was room, is passed no more.
MOST_PASSES = 16


@dataclass(eq=False)
class Job:
    """A request for a LiveEngine.

    request  what to do; its tag is free for the caller
    client   whose it is: clients with work waiting get equal shares
    """

    request: RequestState
    client: str = ""
    n_passed: int = field(default=0, init=False, repr=False)
    has_begun: bool = field(default=False, init=False, repr=False)


@dataclass(eq=False)
class _Client:
    """waiting   its jobs, first come first
    n_tokens  the work done for it
    n_at_work its jobs that have begun and not ended"""

    waiting: deque[Job] = field(default_factory=deque)
    n_tokens: int = 0
    n_at_work: int = 0


class Backlog:
    """What waits: n_jobs, n_prompt_tokens, and n_tokens with those that they may generate.  For any thread."""

    def __init__(self) -> None:
        self.n_jobs = self.n_prompt_tokens = self.n_tokens = 0
        self._lock = threading.Lock()

    def add(self, request: RequestState, sign: int = 1) -> None:
        """Counts a request, or with sign -1 counts it no more."""
        with self._lock:
            self.n_jobs += sign
            self.n_prompt_tokens += sign * len(request.prompt)
            self.n_tokens += sign * request.n_positions


class FairQueue:
    """A scheduler.Source of jobs.  For one thread.

    backlog  its owner adds what it is about to push; from there it is counted until it begins or ends
    """

    def __init__(self) -> None:
        self.backlog = Backlog()
        self._clients: dict[str, _Client] = {}
        self._jobs: dict[RequestState, Job] = {}  # waiting or at work
        self._n_tokens = 0  # of the client that had its turn last
        self._tried: list[Job] = []  # candidates since the last take

    def push(self, job: Job) -> None:
        """The job waits from now on."""
        client = self._clients.setdefault(job.client, _Client())
        if not client.waiting:
            others = [one.n_tokens for one in self._clients.values() if one.waiting]
            client.n_tokens = max(client.n_tokens, min(others, default=self._n_tokens))
        client.waiting.append(job)
        self._jobs[job.request] = job

    def candidates(self) -> Iterator[RequestState]:
        """See Source.  The first job of each client, or alone one that has been passed often enough."""
        self._tried.clear()
        clients = sorted((one for one in self._clients.values() if one.waiting), key=lambda one: one.n_tokens)
        heads = [client.waiting[0] for client in clients]
        overdue = [job for job in heads if job.n_passed >= MOST_PASSES]
        for job in [max(overdue, key=lambda job: job.n_passed)] if overdue else heads:
            self._tried.append(job)
            yield job.request

    def take(self, request: RequestState) -> None:
        """See Source: those that were candidates before it have been passed."""
        for job in self._tried[:-1]:
            job.n_passed += 1
        self._tried.clear()
        job = self._jobs[request]
        client = self._clients[job.client]
        client.waiting.popleft()
        job.has_begun = True
        self.backlog.add(request, -1)
        client.n_at_work += 1
        self._n_tokens = client.n_tokens
        client.n_tokens += request.n_positions

    def end(self, request: RequestState) -> Job:
        """The job of a request that has ended, at work or waiting: the queue forgets it."""
        job = self._jobs.pop(request)
        self._tried.clear()
        client = self._clients[job.client]
        if job.has_begun:
            client.n_at_work -= 1
            client.n_tokens -= max(request.n_positions - len(request.prompt) - len(request.tokens), 0)
        else:
            client.waiting.remove(job)
            self.backlog.add(request, -1)
        if not client.waiting and not client.n_at_work:
            del self._clients[job.client]
        return job

    def job_of(self, request: RequestState) -> Job:
        """Of a request that has not ended."""
        return self._jobs[request]

    @property
    def is_empty(self) -> bool:
        """Whether no job waits or is at work."""
        return not self._jobs

    def __contains__(self, job: object) -> bool:
        return isinstance(job, Job) and self._jobs.get(job.request) is job

    def jobs(self) -> list[Job]:
        """All that wait or are at work, the first come first."""
        return list(self._jobs.values())
