"""Files, lines, JSON and pages: what is written is whole or not there."""
