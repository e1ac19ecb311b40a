"""Scheduling: many requests' jobs share the engine's steps."""
