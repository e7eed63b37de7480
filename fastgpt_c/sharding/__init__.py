"""A batch cut into shards, which any number of machines run: plan, work, commit, merge."""
