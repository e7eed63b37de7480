"""Looking at a model from outside: logit lens, comparison with transformers, benchmark."""
