"""Prompt -> text: sampling, beam search, contrastive search, speculative decoding, constraints."""
