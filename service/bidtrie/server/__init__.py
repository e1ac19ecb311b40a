"""The gRPC services, and HTTP for metrics and probes."""
