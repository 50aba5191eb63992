"""The checks, by theme. To import them is to register them."""

from nocookie.testing.audit.checks import (
    caches,
    ends,
    ids,
    insight,
    lifetimes,
    saves,
    urls,
)

__all__ = ["caches", "ends", "ids", "insight", "lifetimes", "saves", "urls"]
