"""How tokens are drawn where nobody says otherwise; apart, since --help shows them and must not import the engine."""

TEMPERATURE = 0.8
TOP_P = 0.95
MIROSTAT_ETA = 0.1

# The key of a model file with what generation_config.json says, as JSON.
MODEL_DEFAULTS_KEY = "fastgpt.generation.defaults"
