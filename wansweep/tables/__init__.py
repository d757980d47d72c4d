"""Records to Polars frames. Columns are METRICS names."""
