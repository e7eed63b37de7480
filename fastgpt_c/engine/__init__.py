"""A loaded model, its sessions and their steps, what a step has inside, and what draws tokens from logits."""
