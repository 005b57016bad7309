"""The one error that ends a run with a message instead of a trace."""


class BenchmarkFailure(Exception):
    """Something that the reader of the message can act on."""
