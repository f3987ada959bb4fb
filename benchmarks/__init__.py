"""Benchmarks: thin fronts; the measuring itself is wan_kernels.benchmark."""
