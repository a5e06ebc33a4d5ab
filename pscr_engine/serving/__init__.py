"""Serving: what many threads ask of one backend at once is gathered into batches, and answered one by one."""
