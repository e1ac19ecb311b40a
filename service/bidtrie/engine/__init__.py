"""Engines: one interface, the tree batch, and its implementations."""
