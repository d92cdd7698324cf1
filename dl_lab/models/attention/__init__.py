"""Attention mechanisms: plain functions of (q, k, v, mask) with one contract, and modules that a config can choose.

The contract:

- q (..., length, dim), k (..., length, dim) and v (..., length, dim_v) give (..., length, dim_v).
- The similarity is exp(q . k) without a factor 1 / sqrt(dim). A caller who wants the factor scales q and k first.
- mask (..., length) bool is True where a key counts. It is broadcast over the leading axes.
- A query that sees no key gets zeros.

docs/attention.md derives every formula.
"""
