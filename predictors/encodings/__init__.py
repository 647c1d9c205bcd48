"""Encodings of whole architectures as vectors, without labels: zero-cost proxies, Arch2Vec, CATE and CAZ.

NASFLAT's samplers choose by them, and its network reads them beside the graph (Akhauri and Abdelfattah, On Latency
Predictors for Neural Architecture Search, MLSys 2024, section 4 and table 5).
"""
