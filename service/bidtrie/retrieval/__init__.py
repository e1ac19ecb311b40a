"""Ranking segments without the language model: shortlists, fallbacks, baselines."""
