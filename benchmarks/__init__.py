"""Figures that wansweep claims of itself, measured. ``make bench`` prints them; ratios side by side in one run, medians of several."""
