"""How tokens are drawn where nobody says otherwise; apart, since --help shows them and must not import the engine."""

TEMPERATURE = 0.8
TOP_P = 0.95
MIROSTAT_ETA = 0.1
