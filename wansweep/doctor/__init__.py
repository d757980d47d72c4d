"""What this machine can run and measure, what it cannot, and how to mend it."""
