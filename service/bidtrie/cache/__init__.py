"""The answer cache: answers in memory and, where replicas share them, in Redis; one event loop uses it."""
