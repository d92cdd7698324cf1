"""Attention mechanisms: plain functions of (q, k, v, mask) with one contract, and modules that a config can choose.

Contract: q (..., length, dim), k (..., length, dim), v (..., length, dim_v) -> (..., length, dim_v). Similarity is
exp(q . k) without a 1/sqrt(dim) factor: who wants one scales q and k before. mask (..., length) bool, True where
a key counts, broadcast over the leading axes. A query that sees no key gets zeros. docs/attention.md derives it all.
"""
