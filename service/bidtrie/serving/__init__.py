"""What answers queries: a model on its engine, the catalogs prepared for it, and the rankers over both."""
