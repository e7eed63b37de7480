"""What  -m  names -> a local GGUF file: the demo model, folders, the Hugging Face hub, OpenAI's store."""
