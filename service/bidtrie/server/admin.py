"""The Admin service."""

import re
import time

import grpc

from bidtrie import __version__
from bidtrie.errors import InvalidInput
from bidtrie.requests import CatalogStatus, ModelStatus
from bidtrie.server.context import Context
from bidtrie.server.lifecycle import Lifecycle
from bidtrie.v1 import admin_pb2, admin_pb2_grpc

_CATALOG_NAME = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_MODEL_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)


class Admin(admin_pb2_grpc.AdminServicer):
    """What runs here; changing it where `allowed`."""

    def __init__(self, lifecycle: Lifecycle, *, allowed: bool) -> None:
        self._lifecycle = lifecycle
        self._allowed = allowed

    async def GetStatus(  # noqa: N802 (gRPC's name)
        self, request: admin_pb2.GetStatusRequest, context: Context
    ) -> admin_pb2.GetStatusResponse:
        response = admin_pb2.GetStatusResponse(
            version=__version__,
            ready=self._lifecycle.ready,
            requests_in_flight=self._lifecycle.in_flight,
            uptime_s=time.monotonic() - self._lifecycle.started_at,
        )
        if self._lifecycle.backend is not None:
            status = self._lifecycle.backend.status()
            response.model.CopyFrom(_model(status.model))
            response.catalogs.extend(
                _catalog(each) for each in sorted(status.catalogs, key=lambda catalog: catalog.name)
            )
            response.kv_slots, response.kv_slots_free = status.kv_slots, status.kv_slots_free
        return response

    async def LoadCatalog(  # noqa: N802 (gRPC's name)
        self, request: admin_pb2.LoadCatalogRequest, context: Context
    ) -> admin_pb2.LoadCatalogResponse:
        await self._check(context)
        if not _CATALOG_NAME.fullmatch(request.name):
            raise InvalidInput.of("name", "must be 1 to 64 of a-z, 0-9, '-', '_'")
        with self._lifecycle.call() as backend:
            return admin_pb2.LoadCatalogResponse(catalog=_catalog(await backend.load_catalog(request.name)))

    async def LoadModel(  # noqa: N802 (gRPC's name)
        self, request: admin_pb2.LoadModelRequest, context: Context
    ) -> admin_pb2.LoadModelResponse:
        await self._check(context)
        if not _MODEL_NAME.fullmatch(request.name):
            raise InvalidInput.of("name", "must be 1 to 64 of A-Z, a-z, 0-9, '-', '_', '.', not '.' first")
        with self._lifecycle.call() as backend:
            return admin_pb2.LoadModelResponse(model=_model(await backend.load_model(request.name)))

    async def _check(self, context: Context) -> None:
        if not self._allowed:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, "the server was not started with admin = true"
            )


def _model(status: ModelStatus) -> admin_pb2.ModelStatus:
    return admin_pb2.ModelStatus(
        name=status.name,
        version=status.version,
        engine=status.engine,
        weights=status.weights,
        instruction_set=status.instruction_set,
        threads=status.threads,
    )


def _catalog(status: CatalogStatus) -> admin_pb2.CatalogStatus:
    return admin_pb2.CatalogStatus(
        name=status.name,
        version=status.version,
        segments=status.segments,
        nodes=status.nodes,
        is_default=status.is_default,
    )
