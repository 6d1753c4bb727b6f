"""Builders, fakes and servers shared by tests and benchmarks."""
