"""Benchmarks of amorce against what people use today; see Benchmarks/README.md."""
