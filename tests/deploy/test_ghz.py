"""ghz's settings against what ghz takes, and their messages against the protos and the server's own checks.

ghz itself is not at hand: the keys and their types are those of its configuration files.
"""

import json
import random
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from bidtrie.load import LoadOptions, ScheduleName
from bidtrie.v1 import creative_pb2, targeting_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_tools import protoc
from server.process import ServerProcess, fake_server

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "ghz"
FILES = sorted(FOLDER.glob("*.json"))

# What Go's time.ParseDuration takes.
DURATION = re.compile(r"0|[+-]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+")

TEXTS = {
    "proto", "protoset", "call", "cacert", "cert", "key", "cname", "authority", "concurrency-schedule",
    "duration-stop", "data-file", "binary-file", "metadata-file", "output", "format", "name", "debug", "host",
    "load-schedule",
}  # fmt: skip
FLAGS = {"skipTLS", "insecure", "async", "enable-compression", "count-errors"}
COUNTS = {
    "skipFirst", "total", "concurrency", "concurrency-start", "concurrency-end", "connections", "rps", "cpus",
    "load-start", "load-end",
}  # fmt: skip
STEPS = {"concurrency-step", "load-step"}
DURATIONS = {
    "concurrency-step-duration", "concurrency-max-duration", "duration", "max-duration", "timeout",
    "stream-interval", "connect-timeout", "keepalive", "load-step-duration",
    "load-max-duration",
}  # fmt: skip
MAPS = {"metadata", "tags", "reflect-metadata"}
CHOICES = {
    "load-schedule": {"const", "step", "line"},
    "concurrency-schedule": {"const", "step", "line"},
    "duration-stop": {"close", "wait", "ignore"},
    "format": {"summary", "csv", "json", "pretty", "html", "influx-summary", "influx-details"},
}


def fits(key: str, value: Any) -> bool:
    """Whether ghz has such a key, and it takes such a value."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if key in TEXTS:
        return isinstance(value, str) and value in CHOICES.get(key, {value})
    if key in FLAGS:
        return isinstance(value, bool)
    if key in COUNTS:
        return whole and value >= 0
    if key in STEPS:
        return whole
    if key in DURATIONS:
        return isinstance(value, str) and DURATION.fullmatch(value) is not None
    if key in MAPS:
        return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if key == "import-paths":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if key == "data":
        messages = value if isinstance(value, list) else [value]
        return bool(messages) and all(isinstance(each, dict) for each in messages)
    return False


def rendered(text: str, number: int, source: random.Random) -> str:
    """The text of a message as ghz sends it with its `number`-th request; KeyError for an unknown template."""

    def action(match: "re.Match[str]") -> str:
        name, *arguments = match[1].split()
        low, high = (int(each) for each in arguments) if arguments else (0, 0)
        made = {
            ".RequestNumber": lambda: str(number),
            ".UUID": lambda: str(uuid.UUID(int=source.getrandbits(128), version=4)),
            "randomInt": lambda: str(source.randrange(low, high)),
            "randomString": lambda: "x" * source.randint(low, high),
        }
        return made[name]()

    return re.sub(r"\{\{(.*?)\}\}", action, text)


def method_of(call: str) -> MethodDescriptor:
    """The method that `package.Service/Method` names; KeyError: there is none."""
    assert targeting_pb2.DESCRIPTOR.name
    assert creative_pb2.DESCRIPTOR.name
    service, _, method = call.partition("/")
    found: MethodDescriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    return found


def messages_of(config: dict[str, Any], repetitions: int = 3) -> list[Message]:
    """The first messages of a run, as ghz makes them: in turn where there are several."""
    data = config["data"] if isinstance(config["data"], list) else [config["data"]]
    kind = message_factory.GetMessageClass(method_of(config["call"]).input_type)
    source = random.Random(1)
    return [
        json_format.Parse(rendered(json.dumps(data[number % len(data)]), number, source), kind())
        for number in range(repetitions * len(data))
    ]


def compiles(proto: str, import_paths: list[str], out: Path) -> bool:
    """Whether the file and its imports are found from the root, with the folders that ghz adds by itself."""
    folders = [str(Path(proto).parent), ".", *import_paths]
    flags = [f"--proto_path={folder}" for folder in folders]
    status: int = protoc.main(["protoc", *flags, f"--descriptor_set_out={out}", proto])
    return status == 0


def read(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with fake_server() as running:
        running.event("ready")
        yield running


def test_there_is_a_file_of_each_kind() -> None:
    assert {file.stem for file in FILES} == {
        "creative", "overload-line", "overload-step", "targeting-proto", "targeting-reflection",
    }  # fmt: skip


def test_keys_and_types(config: dict[str, Any]) -> None:
    assert [key for key, value in config.items() if not fits(key, value)] == []
    assert config["insecure"]
    assert config["async"], "a closed loop hides overload"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("load_start", 5), ("qps", 5), ("rps", 0.5), ("rps", True), ("rps", "5"), ("duration", 30),
        ("duration", "30"), ("timeout", "1 s"), ("import-paths", "protos"), ("async", 1), ("data", []),
        ("data", "{}"), ("load-schedule", "linear"), ("tags", {"a": 1}),
    ],
)  # fmt: skip
def test_what_ghz_does_not_take_is_found(key: str, value: Any) -> None:
    assert not fits(key, value)


def test_messages_parse_and_templates_change_them(config: dict[str, Any]) -> None:
    messages = messages_of(config)
    assert len({message.SerializeToString() for message in messages}) == len(messages)
    assert "{{" not in "".join(map(str, messages))


@pytest.mark.parametrize(
    "data",
    [{"contexts": {"title": "x"}}, {"context": {"title": 5}}, {"top_k": "many"}, {"ranker": "RANKER_BEST"}],
)
def test_wrong_messages_are_found(data: dict[str, Any]) -> None:
    with pytest.raises(json_format.ParseError):
        messages_of({"call": "bidtrie.v1.Targeting/Target", "data": data})


@pytest.mark.parametrize("call", ["bidtrie.v1.Targeting/Aim", "bidtrie.v2.Targeting/Target"])
def test_wrong_methods_are_found(call: str) -> None:
    with pytest.raises(KeyError):
        method_of(call)


def test_unknown_templates_are_found() -> None:
    with pytest.raises(KeyError):
        rendered("{{.Number}}", 1, random.Random(1))


def test_the_server_takes_the_messages(config: dict[str, Any], server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(f"/{config['call']}")
        for message in messages_of(config):
            assert call(message.SerializeToString(), timeout=30)


@pytest.mark.parametrize(
    "file", [file for file in FILES if "proto" in read(file)], ids=lambda file: file.stem
)
def test_proto_files_compile_from_the_root(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read(file)
    monkeypatch.chdir(ROOT)
    assert Path(config["proto"]).suffix == ".proto"
    assert all(Path(folder).is_dir() for folder in config["import-paths"])
    out = tmp_path / "set"
    assert compiles(config["proto"], config["import-paths"], out)
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    methods = {
        f"{file.package}.{service.name}/{method.name}"
        for file in files
        for service in file.service
        for method in service.method
    }
    assert config["call"] in methods
    # Negative control: without the import paths it does not compile.
    assert not compiles(config["proto"], [], out)


def test_schedules_are_ones_that_bidtrie_load_takes_too(config: dict[str, Any]) -> None:
    name = ScheduleName(config.get("load-schedule", "const"))
    step_duration = config.get("load-step-duration")
    options = LoadOptions(
        load_schedule=name,
        rps=config.get("rps", 50),
        load_start=config.get("load-start"),
        load_end=config.get("load-end"),
        load_step=config.get("load-step"),
        load_step_duration=None if step_duration is None else float(step_duration.removesuffix("s")),
        duration=float(config["duration"].removesuffix("s")),
    )
    options.check()
    assert ("rps" in config) == (name is ScheduleName.CONST)


def test_the_page_names_every_file() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for file in FILES:
        assert f"`{file.name}`" in page
    named = set(re.findall(r"deploy/ghz/([\w-]+\.json)", page))
    assert named == {file.name for file in FILES}
