"""Every setting of the service, typed: from a TOML file, then the environment, then flags; later wins.

Environment variables are the field names in capitals behind `BIDTRIE_`. An unknown key, in the file or
behind that prefix, is an error: a misspelt setting must not be ignored.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bidtrie.errors import InvalidInput, Violation

ENVIRONMENT_PREFIX = "BIDTRIE_"
#: Variables behind the prefix that are no settings: where files are cached.
_NOT_SETTINGS = frozenset({"BIDTRIE_HOME"})


class Settings(BaseModel):
    """Settings of `bidtrie serve`. Times are in milliseconds, sizes in the unit of the name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        "bidtrie-135m", description="A fetched model's name, a .gguf file or a Hugging Face directory."
    )
    levels: tuple[str, ...] = Field(
        (),
        description="Cheaper compression levels of the model, best first, loaded beside it for when time is short.",
    )
    catalogs: tuple[str, ...] = Field(
        (),
        description="Catalogs to serve, the default one first; none: all there are, the first by name as default.",
    )
    host: str = Field("0.0.0.0", description="Address to listen on; there is no TLS.")
    grpc_port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0 picks a free one.")
    http_port: int = Field(
        8080, ge=0, le=65535, description="Port of /metrics and /health; 0 picks a free one."
    )
    engine: Literal["native", "vllm"] = Field(
        "native",
        description="What computes the model: the embedded CPU engine, or vLLM (the extra bidtrie[vllm]).",
    )
    tensor_parallel: int = Field(
        1, ge=1, le=1024, description="GPUs that the model is spread over, engine vllm."
    )
    tensor_parallel_launcher: Literal["mp", "ray"] = Field(
        "mp", description="What runs a process for each of them: this machine, or a Ray cluster."
    )
    threads: int | None = Field(None, ge=1, le=256, description="Engine threads; unset: one per usable core.")
    weights: Literal["auto", "float32"] = Field(
        "auto", description="auto: as the checkpoint stores them; float32: dequantized at load."
    )
    kv: Literal["auto", "float16", "float32"] = Field(
        "auto", description="How keys and values are kept; auto: float16 where weights are quantized."
    )
    instruction_set: Literal["avx512", "avx2", "portable"] | None = Field(
        None, description="Kernels to use; unset: the best that the CPU has."
    )
    kv_slots: int = Field(16384, ge=256, le=1 << 22, description="Tokens that the KV cache holds.")
    max_step_nodes: int = Field(128, ge=8, le=4096, description="Most nodes in one engine step.")
    max_step_ms: float = Field(
        10.0,
        gt=0,
        le=1000,
        description="Longest engine step, as predicted: what an arriving request may wait for.",
    )
    max_queue: int = Field(256, ge=1, le=1_000_000, description="Most requests waiting or running.")
    tmax_share: float = Field(
        0.8, gt=0, le=1, description="Share of tmax_ms that may be spent here: tmax is the whole auction's."
    )
    network_margin_ms: float = Field(
        2.0, ge=0, le=1000, description="Kept back from a gRPC deadline for the answer's way to the client."
    )
    max_budget_ms: float = Field(
        60_000, gt=0, le=600_000, description="Longest that a request may take, whatever it asks for."
    )
    cache_bytes: int = Field(
        64 << 20, ge=0, le=1 << 40, description="Memory for cached targeting answers; 0: no cache."
    )
    creative_cache_bytes: int = Field(
        16 << 20, ge=0, le=1 << 40, description="Memory for cached creatives; 0: no cache."
    )
    cache_fresh_seconds: float = Field(
        3600, gt=0, le=31_536_000, description="How long a cached answer is as good as a new one."
    )
    cache_stale_seconds: float = Field(
        82_800,
        ge=0,
        le=31_536_000,
        description="How long after that it may stand in while a new one is computed.",
    )
    cache_redis_url: str | None = Field(
        None,
        description="redis://HOST:PORT/DB: a second cache, shared by replicas (the extra bidtrie[redis]).",
    )
    cache_fills: int = Field(
        64,
        ge=0,
        le=100_000,
        description="Most answers that wait to be computed for the cache from idle time.",
    )
    search: Literal["exact", "likely", "beam"] = Field(
        "likely", description="How the model's ranking is searched for where a request does not say."
    )
    beam_width: int = Field(4, ge=1, le=64, description="Prefixes that go on at each level of a beam search.")
    prior_weight: float | None = Field(
        None,
        ge=0,
        le=2,
        description="Default weight of the prior correction; unset: what the model recommends, else 0.8.",
    )
    ranker: Literal["retriever", "llm", "both"] | None = Field(
        None,
        description="What RANKER_AUTO means; unset: both, but the retriever alone for catalogs other than those that "
        "the model says it was tuned for.",
    )
    retriever_weight: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Weight of the retriever's score beside the model's in RANKER_BOTH; unset: what the model "
        "recommends, else 3.",
    )
    max_context_tokens: int = Field(
        128, ge=16, le=4096, description="Most prompt tokens taken from a context."
    )
    approved_creatives: Path | None = Field(
        None,
        description="File of approved ad texts to make drafts of, one JSON object a line; read anew when it changes.",
    )
    draft_nodes: int = Field(
        8,
        ge=0,
        le=64,
        description="Most tokens that are guessed ahead of a creative's text in one step; 0: none.",
    )
    draft_memory_bytes: int = Field(
        4 << 20,
        ge=0,
        le=1 << 32,
        description="Memory for advertisers' recent texts, which drafts are made of; 0: none is kept.",
    )
    max_message_bytes: int = Field(1 << 20, ge=1024, le=1 << 28, description="Largest request.")
    drain_seconds: float = Field(10.0, ge=0, le=600, description="Grace for running requests after SIGTERM.")
    admin: bool = Field(False, description="Allow Admin.LoadCatalog and Admin.LoadModel.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level of log lines that are written."
    )


def flag_of(name: str) -> str:
    """The flag of `bidtrie serve` for a setting."""
    return f"--{name.replace('_', '-')}"


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"{ENVIRONMENT_PREFIX}{name.upper()}"


def default_of(name: str) -> str:
    """A setting's default as people read it: a list without members is "none", None is "unset"."""
    default = Settings.model_fields[name].default
    if isinstance(default, tuple):
        return ",".join(default) or "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:.15g}"
    return "unset" if default is None else str(default)


def is_list(name: str) -> bool:
    """Whether a setting holds several values, which flags and environment variables separate by commas."""
    return name in Settings.model_fields and isinstance(Settings.model_fields[name].default, tuple)


def split_list(text: str) -> tuple[str, ...]:
    """The members of a list as flags and environment variables have it."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def load_settings(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from a file, the environment (default: the process's) and flags that were given.

    Raises InvalidInput naming each wrong key by where it came from.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in _from_file(file).items():
        values[name], origin[name] = value, f"{file}: {name}"
    for variable, value in environment.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in _NOT_SETTINGS:
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            values[name], origin[name] = split_list(value) if is_list(name) else value, variable
    for name, value in (flags or {}).items():
        if value is not None:
            values[name], origin[name] = value, flag_of(name)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        violations = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            hint = problem["msg"]
            if _is_table(values.get(name)):
                hint = "is a table, expected settings at the top level of the file, under no [header]"
            elif problem["type"] == "extra_forbidden":
                close = difflib.get_close_matches(name, Settings.model_fields, n=1)
                hint = "unknown setting" + (f"; did you mean {close[0]}?" if close else "")
            violations.append(Violation(origin.get(name, name), hint))
        raise InvalidInput(violations) from error


def _is_table(value: Any) -> bool:
    """Whether a value of the file is what stands below `[name]` or `[[name]]`."""
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(each, dict) for each in value)
    )


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput.of(str(file), f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput.of(str(file), f"is not TOML: {error}") from error
