"""How likely a model finds texts: token scores, perplexity, multiple choice."""
