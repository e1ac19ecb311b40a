"""What the server needs from whatever does the work."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator

from bidtrie.requests import (
    CatalogStatus,
    GenerateAnswer,
    GenerateQuery,
    ModelStatus,
    Status,
    TargetAnswer,
    TargetQuery,
    TextDelta,
)


class Backend(ABC):
    """Answers queries. Every method is called on the event loop and must not block it.

    Cancelling the task that awaits a method ends the work behind it. A query may raise InvalidInput (fields named as in
    the protos: `catalog`, `candidates[3]`), DeadlineExceeded, Overloaded and NotReady; anything else counts as a
    defect.
    """

    @abstractmethod
    async def target(self, query: TargetQuery) -> TargetAnswer:
        """Rank segments; partial rather than late. An unknown catalog is InvalidInput naming the loaded ones."""

    def recall(self, query: TargetQuery) -> tuple[TargetAnswer, float] | None:
        """What `target` would answer and its age in seconds, if it lies at hand; the deadline does not matter."""
        return None

    @abstractmethod
    def generate(self, query: GenerateQuery) -> AsyncGenerator[TextDelta | GenerateAnswer, None]:
        """Write texts: pieces as they are written, then the answer, which is always the last item.

        Closing the generator ends the work.
        """

    def lost(self) -> bool:
        """Whether nothing but a restart helps."""
        return False

    @abstractmethod
    def status(self) -> Status:
        """What is loaded."""

    @abstractmethod
    async def load_catalog(self, name: str) -> CatalogStatus:
        """Load or reload a catalog. Raises InvalidInput when there is none, CatalogError when it cannot be read."""

    @abstractmethod
    async def load_model(self, name: str) -> ModelStatus:
        """Load a model and switch to it. Raises InvalidInput when there is none, ModelError when it cannot be read."""

    @abstractmethod
    async def close(self) -> None:
        """End all work and free everything; called once, last."""
