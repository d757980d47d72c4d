"""How far two videos of one workload lie apart: what trials keep for it, the distance, and where distances are kept."""
