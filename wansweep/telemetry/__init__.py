"""What the machine says of itself: environment, counters, samples. No torch at import."""
