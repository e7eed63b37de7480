"""Where the time of steps goes: records of ops and layers, beside what the machine could do."""
