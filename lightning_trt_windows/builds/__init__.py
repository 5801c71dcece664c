"""Builds that are handed over: what is built, where, and which checkpoints want it."""
