"""Trials on a cluster. The only home of Ray."""
