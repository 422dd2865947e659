"""Buffers, one module each."""
