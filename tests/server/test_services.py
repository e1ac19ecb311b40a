"""What good requests get."""

import grpc
import pytest
from bidtrie import __version__
from bidtrie.v1.admin_pb2 import GetStatusRequest, LoadCatalogRequest, LoadModelRequest
from bidtrie.v1.common_pb2 import SOURCE_LLM
from bidtrie.v1.creative_pb2 import GenerateRequest, Slot
from bidtrie.v1.targeting_pb2 import TargetRequest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server.conftest import Running
from server.fake_backend import WORDS
from server.statuses import failure, violations

SERVICES = ("bidtrie.v1.Targeting", "bidtrie.v1.Creative", "bidtrie.v1.Admin")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_target(running: Running) -> None:
    request = TargetRequest(request_id="r", context={"title": "t"}, candidates=["b", "a", "c"], top_k=2)
    response = await running.targeting.Target(request)
    assert response.request_id == "r"
    assert [(s.id, s.name, list(s.path), s.score) for s in response.segments] == [
        ("b", "Name b", ["Top", "Name b"], 0.0),
        ("a", "Name a", ["Top", "Name a"], -1.0),
    ]
    assert response.segments[1].log_probability == -2.0
    assert (response.source, response.partial) == (SOURCE_LLM, False)
    assert (response.catalog, response.catalog_version) == ("fake", "0" * 16)
    assert (response.model, response.model_version) == ("fake-model", "1" * 16)
    assert response.prompt_version == "fake-prompt-1"
    timings = response.timings
    assert (timings.queue_ms, timings.engine_ms, timings.steps, timings.nodes) == (1, 2, 3, 40)
    assert (timings.prompt_tokens, timings.cached_tokens) == (20, 10)
    assert timings.total_ms > 0


async def test_generate(running: Running) -> None:
    request = GenerateRequest(
        request_id="g", product={"name": "p"}, slots=[Slot(name="a"), Slot(name="b")], candidates=2
    )
    request.sampling.seed = 2**64 - 1
    response = await running.creative.Generate(request)
    assert response.request_id == "g"
    assert [(each.slot, each.rank) for each in response.creatives] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert response.creatives[0].text == "".join(WORDS)
    assert response.seed == 2**64 - 1


async def test_a_stream_is_the_pieces_and_then_the_response(running: Running) -> None:
    request = GenerateRequest(request_id="g", product={"name": "p"}, candidates=2)
    updates = [update async for update in running.creative.GenerateStream(request)]
    kinds = [update.WhichOneof("update") for update in updates]
    assert kinds == ["delta"] * (2 * len(WORDS)) + ["response"]
    texts = ["", ""]
    for update in updates[:-1]:
        texts[update.delta.candidate] += update.delta.text
    response = updates[-1].response
    assert response.request_id == "g"
    assert texts == [each.text for each in response.creatives]


async def test_status(loading: Running) -> None:
    status = await loading.admin.GetStatus(GetStatusRequest())
    assert (status.version, status.ready, status.HasField("model")) == (__version__, False, False)
    loading.backend.catalogs.append("b")
    await loading.server.load(lambda: loading.backend)
    status = await loading.admin.GetStatus(GetStatusRequest())
    assert status.ready
    assert status.model.name == "fake-model"
    assert [each.name for each in status.catalogs] == ["b", "fake"]
    assert (status.kv_slots, status.kv_slots_free, status.requests_in_flight) == (1024, 1000, 0)
    assert status.uptime_s > 0


async def test_admin_is_off_by_default(running: Running) -> None:
    for call in (
        running.admin.LoadCatalog(LoadCatalogRequest(name="new")),
        running.admin.LoadModel(LoadModelRequest(name="new")),
    ):
        assert (await failure(call)).code() is grpc.StatusCode.PERMISSION_DENIED
    assert running.backend.catalogs == ["fake"]


async def test_admin_loads(admin_running: Running) -> None:
    loaded = await admin_running.admin.LoadCatalog(LoadCatalogRequest(name="new"))
    assert (loaded.catalog.name, loaded.catalog.version) == ("new", "2" * 16)
    switched = await admin_running.admin.LoadModel(LoadModelRequest(name="other-1.5B_q4"))
    assert switched.model.name == "other-1.5B_q4"


@pytest.mark.parametrize("name", ["", "../up", "UPPER", "a" * 65, "a/b", "a.b", "ü", "a\n"])
async def test_catalog_names_are_folder_names(admin_running: Running, name: str) -> None:
    error = await failure(admin_running.admin.LoadCatalog(LoadCatalogRequest(name=name)))
    assert set(violations(error)) == {"name"}


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a" * 65, "a b", "a\n"])
async def test_model_names_are_file_names(admin_running: Running, name: str) -> None:
    error = await failure(admin_running.admin.LoadModel(LoadModelRequest(name=name)))
    assert set(violations(error)) == {"name"}


async def test_what_cannot_be_loaded(admin_running: Running) -> None:
    missing = await failure(admin_running.admin.LoadCatalog(LoadCatalogRequest(name="missing")))
    assert violations(missing) == {"name": "there is no such catalog"}
    for call, said in (
        (admin_running.admin.LoadCatalog(LoadCatalogRequest(name="broken")), "broken: line 3 has no id"),
        (admin_running.admin.LoadModel(LoadModelRequest(name="broken")), "broken: cut off"),
    ):
        error = await failure(call)
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, said)


async def test_health(loading: Running) -> None:
    stub = health_pb2_grpc.HealthStub(loading.channel)
    for service in ("", *SERVICES):
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await stub.Check(request)).status == NOT_SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await watch.read()).status == NOT_SERVING
    await loading.server.load(lambda: loading.backend)
    assert (await watch.read()).status == SERVING
    watch.cancel()
    for service in ("", *SERVICES):
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await stub.Check(request)).status == SERVING
    error = await failure(stub.Check(health_pb2.HealthCheckRequest(service="nobody")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection(running: Running) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    request = reflection_pb2.ServerReflectionRequest
    call = stub.ServerReflectionInfo(
        iter([request(list_services=""), request(file_containing_symbol="bidtrie.v1.Targeting")])
    )
    listed, described = [response async for response in call]
    names = {service.name for service in listed.list_services_response.service}
    assert {*SERVICES, "grpc.health.v1.Health"} <= names
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in described.file_descriptor_response.file_descriptor_proto
    ]
    assert any(file.name == "bidtrie/v1/targeting.proto" for file in files)
