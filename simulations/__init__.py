"""Hospitals in one process tree on Ray, baselines, measurements, reports and the benchmark."""
