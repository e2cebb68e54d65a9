"""Measurements of Level-IP: `make bench` runs bench.py; bench_*.py measure one core alone."""
