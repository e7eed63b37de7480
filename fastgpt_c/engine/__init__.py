"""A loaded model, its sessions and their steps, and what draws tokens from logits."""
