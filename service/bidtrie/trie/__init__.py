"""Catalogs, their token tries, and the search over them."""
