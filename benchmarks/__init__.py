"""The benchmark suite: `python -m benchmarks`, `make bench` or `make bench-quick`. README.md beside this says more."""
