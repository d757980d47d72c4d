"""What the machine says of itself: environment, counters, samples. No torch at import.

At a stage's edges a trial reads counters (host.py, nvml.py, torch_probe.py); between them a process samples gauges (sampling.py starts
sampler.py, which reads by gpu_reader.py and host.py into the file of trace.py); join.py makes values of samples (samples.py).
environment.py, limits.py and page_cache.py say under what conditions it all was taken.
"""
