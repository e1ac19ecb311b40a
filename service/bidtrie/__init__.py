"""bidtrie: LLM targeting and ad creatives inside a bid's time budget."""

__version__ = "0.1.0"
