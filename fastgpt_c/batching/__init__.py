"""Many prompts in one step: the scheduler, its KV caches, and files of requests."""
