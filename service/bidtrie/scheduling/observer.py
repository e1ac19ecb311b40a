"""What the scheduler tells whoever measures it."""

from collections.abc import Mapping

from bidtrie.scheduling.service_class import ServiceClass


class Observer:
    """This one does not listen. Called on the engines' thread or, where it says so, a caller's; times in seconds."""

    def arrived(self, service_class: ServiceClass, slack: float) -> None:
        """A request was submitted with this much time left. On the caller's thread."""

    def planned(self, plan: str) -> None:
        """A request was admitted with this plan. On the caller's thread."""

    def shrunk(self, plan: str) -> None:
        """A request that was admitted with a better plan has to take this one, so that another fits."""

    def shed(self, service_class: ServiceClass, reason: str) -> None:
        """A request gets no answer of a model. On any thread.

        late_on_arrival  its time had passed when it came
        queue_full       too many requests are waiting or running
        deadline         no plan fits its time
        expired          its time passed while it waited or ran
        kv_full          the KV cache has no room
        """

    def started(self, service_class: ServiceClass, queue_seconds: float, slack: float) -> None:
        """A job's first step is about to run; it waited this long, and would end this long before its deadline."""

    def step(self, level: int, seconds: float, nodes: Mapping[ServiceClass, int], jobs: int) -> None:
        """One engine step: how long the engine took, the nodes it computed by class, and for how many jobs."""

    def predicted(self, level: int, ratio: float) -> None:
        """A step and its jobs' own work took this many times the predicted mean."""

    def queue(self, jobs: int) -> None:
        """Jobs waiting or running, after it changed. On any thread."""
