"""Evaluation: how good the service's answers are, beside baselines. Never needed to serve."""
