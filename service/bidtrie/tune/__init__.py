"""Fine-tuning for targeting and creatives, with torch (extra `tune`)."""
