"""Training pairs of the project's own, and what they are like (`python -m data.card`)."""
