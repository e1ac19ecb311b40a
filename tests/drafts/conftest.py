"""The home folder of tiny models that the serving tests have."""

from serving.conftest import home

__all__ = ["home"]
