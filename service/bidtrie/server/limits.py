"""Limits that several messages share, as the protos state them."""

MAX_REQUEST_ID = 128
MAX_TMAX_MS = 60_000
