"""An option of `batch` is kept in the plan of shards, or is of the machine that runs one, or is refused."""

from __future__ import annotations

from fastgpt_c.cli.commands import parser_of
from fastgpt_c.cli.shards import OF_PLAN

# How and where, not what: each machine has its own.
OF_MACHINE = {
    "source", "target", "model", "threads", "no_mmap", "max_batch", "max_tokens_in_flight", "prefill_chunk",
    "prefix_cache", "help",
}  # fmt: skip
OF_SHARDS = {"shard_bytes", "check_ids", "shard", "ray", "threads_per_task", "merge", "json", "allow_errors"}
REFUSED = {"control_vector", "control_vector_layer_range"}


def test_no_option_is_forgotten() -> None:
    """One that would be read over changes what the job writes, and nobody would know."""
    options = {action.dest for action in parser_of("batch")._actions}
    assert options >= set(OF_PLAN) | OF_SHARDS | REFUSED
    assert options - set(OF_PLAN) - OF_MACHINE - OF_SHARDS - REFUSED == set()
