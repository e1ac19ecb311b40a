"""What the bidstream sends, mapped to what the service understands."""
