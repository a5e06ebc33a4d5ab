"""Exact statistics over columns that need not fit in memory: order statistics and rank correlation."""
