"""The asyncio client. Make and use it on one event loop."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from bidtrie.client.channel import (
    CHANNEL_OPTIONS,
    DEFAULT_ADDRESS,
    GENERATE_TIMEOUT_MS,
    TARGET_TIMEOUT_MS,
    deadline_s,
)
from bidtrie.client.errors import request_failed
from bidtrie.client.messages import generate_request, target_request
from bidtrie.openrtb.v2.openrtb_pb2 import BidRequest
from bidtrie.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    creative_pb2,
    creative_pb2_grpc,
    targeting_pb2,
    targeting_pb2_grpc,
)

Response = TypeVar("Response")


class AsyncClient:
    """Calls a server over one channel, which is kept; use it as a context manager, or `close` it.

    Cancelling a task that waits for an answer cancels the call on the server.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        wait_for_ready: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """`address` is HOST:PORT. With `wait_for_ready` calls wait for the connection until their deadline instead of
        failing at once; `credentials` are gRPC's, None: plain text.
        """
        options = list(CHANNEL_OPTIONS)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options)
        self._wait_for_ready = wait_for_ready
        self._targeting = targeting_pb2_grpc.TargetingStub(self._channel)
        self._creative = creative_pb2_grpc.CreativeStub(self._channel)
        self._admin = admin_pb2_grpc.AdminStub(self._channel)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End running calls and close the channel."""
        await self._channel.close()

    async def target(
        self,
        *,
        title: str = "",
        description: str = "",
        keywords: Iterable[str] = (),
        language: str = "",
        categories: Iterable[str] = (),
        app_name: str = "",
        site_name: str = "",
        bid_request: BidRequest | bytes | None = None,
        catalog: str = "",
        top_k: int | None = None,
        tmax_ms: int | None = None,
        candidates: Iterable[str] = (),
        blocked: Iterable[str] = (),
        normalization: targeting_pb2.Normalization | str = targeting_pb2.NORMALIZATION_UNSPECIFIED,
        prior_weight: float | None = None,
        ranker: targeting_pb2.Ranker | str = targeting_pb2.RANKER_AUTO,
        search: targeting_pb2.Search | str = targeting_pb2.SEARCH_UNSPECIFIED,
        beam_width: int | None = None,
        allow_partial: bool | None = None,
        allow_fallback: bool | None = None,
        request_id: str = "",
        timeout_ms: float = TARGET_TIMEOUT_MS,
    ) -> targeting_pb2.TargetResponse:
        """Rank the segments of a catalog for a page or app, or for a BidRequest (a message, or its bytes).

        `timeout_ms` is the gRPC deadline; `tmax_ms` tells the server the auction's own. The limits are those of
        targeting.proto; `ranker`, `normalization` and `search` are its values or their names, "llm" or "RANKER_LLM".
        Raises bidtrie.client.errors.RequestFailed, or InvalidInput for an argument that cannot be sent.
        """
        request = target_request(
            title=title,
            description=description,
            keywords=keywords,
            language=language,
            categories=categories,
            app_name=app_name,
            site_name=site_name,
            bid_request=bid_request,
            catalog=catalog,
            top_k=top_k,
            tmax_ms=tmax_ms,
            candidates=candidates,
            blocked=blocked,
            normalization=normalization,
            prior_weight=prior_weight,
            ranker=ranker,
            search=search,
            beam_width=beam_width,
            allow_partial=allow_partial,
            allow_fallback=allow_fallback,
            request_id=request_id,
        )
        return await self._call(self._targeting.Target, request, timeout_ms)

    async def generate(
        self,
        *,
        product: creative_pb2.Product,
        audience: Iterable[str] = (),
        language: str = "",
        slots: Iterable[creative_pb2.Slot] = (),
        candidates: int | None = None,
        sampling: creative_pb2.Sampling | None = None,
        tmax_ms: int | None = None,
        allow_partial: bool | None = None,
        allow_fallback: bool | None = None,
        priority: creative_pb2.Priority | str = creative_pb2.PRIORITY_UNSPECIFIED,
        request_id: str = "",
        timeout_ms: float = GENERATE_TIMEOUT_MS,
    ) -> creative_pb2.GenerateResponse:
        """Write texts for every slot; none: one headline. `priority` is creative.proto's, or its name: "pregeneration".

        Raises bidtrie.client.errors.RequestFailed, or InvalidInput for an argument that cannot be sent.
        """
        request = generate_request(
            product=product,
            audience=audience,
            language=language,
            slots=slots,
            candidates=candidates,
            sampling=sampling,
            tmax_ms=tmax_ms,
            allow_partial=allow_partial,
            allow_fallback=allow_fallback,
            priority=priority,
            request_id=request_id,
        )
        return await self._call(self._creative.Generate, request, timeout_ms)

    async def generate_stream(
        self,
        *,
        product: creative_pb2.Product,
        audience: Iterable[str] = (),
        language: str = "",
        slots: Iterable[creative_pb2.Slot] = (),
        candidates: int | None = None,
        sampling: creative_pb2.Sampling | None = None,
        tmax_ms: int | None = None,
        allow_partial: bool | None = None,
        allow_fallback: bool | None = None,
        priority: creative_pb2.Priority | str = creative_pb2.PRIORITY_UNSPECIFIED,
        request_id: str = "",
        timeout_ms: float = GENERATE_TIMEOUT_MS,
    ) -> AsyncGenerator[creative_pb2.TextDelta | creative_pb2.GenerateResponse, None]:
        """The same, piece by piece as it is written; the last item is the whole response.

        Closing the generator (`contextlib.aclosing`) cancels the call.
        """
        request = generate_request(
            product=product,
            audience=audience,
            language=language,
            slots=slots,
            candidates=candidates,
            sampling=sampling,
            tmax_ms=tmax_ms,
            allow_partial=allow_partial,
            allow_fallback=allow_fallback,
            priority=priority,
            request_id=request_id,
        )
        async with _errors():
            call = self._creative.GenerateStream(
                request, timeout=deadline_s(timeout_ms), wait_for_ready=self._wait_for_ready
            )
            try:
                async for update in call:
                    yield update.response if update.HasField("response") else update.delta
            finally:
                call.cancel()

    async def status(self, *, timeout_ms: float = TARGET_TIMEOUT_MS) -> admin_pb2.GetStatusResponse:
        """What the server has loaded and how busy it is. Raises bidtrie.client.errors.RequestFailed."""
        return await self._call(self._admin.GetStatus, admin_pb2.GetStatusRequest(), timeout_ms)

    async def load_catalog(
        self, name: str, *, timeout_ms: float = GENERATE_TIMEOUT_MS
    ) -> admin_pb2.LoadCatalogResponse:
        """Load or reload a catalog, where the server allows it. Raises bidtrie.client.errors.RequestFailed."""
        return await self._call(self._admin.LoadCatalog, admin_pb2.LoadCatalogRequest(name=name), timeout_ms)

    async def load_model(
        self, name: str, *, timeout_ms: float = GENERATE_TIMEOUT_MS
    ) -> admin_pb2.LoadModelResponse:
        """Switch to another model, where the server allows it. Raises bidtrie.client.errors.RequestFailed."""
        return await self._call(self._admin.LoadModel, admin_pb2.LoadModelRequest(name=name), timeout_ms)

    async def _call(
        self, method: Callable[..., Awaitable[Response]], request: Message, timeout_ms: float
    ) -> Response:
        async with _errors():
            return await method(request, timeout=deadline_s(timeout_ms), wait_for_ready=self._wait_for_ready)


@asynccontextmanager
async def _errors() -> AsyncGenerator[None, None]:
    """gRPC's errors as ours."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise request_failed(error.code(), error.details(), error.trailing_metadata()) from None
