"""Before running: geometry, rules, what each case reserves. No Ray, no GPU, no torch."""
