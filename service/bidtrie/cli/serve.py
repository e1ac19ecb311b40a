"""`bidtrie serve`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def _option(help_text: str, **more: Any) -> Any:
    return typer.Option(help=help_text, show_default=False, **more)


def serve(
    config: Annotated[
        Path | None, _option("TOML file of settings; environment and flags go before it.")
    ] = None,
    model: Annotated[str | None, _option("A fetched model's name, a .gguf file or a directory.")] = None,
    levels: Annotated[
        str | None, _option("Cheaper compression levels of the model, comma-separated, best first.")
    ] = None,
    catalogs: Annotated[
        str | None, _option("Catalogs to serve, comma-separated, the default one first.")
    ] = None,
    host: Annotated[str | None, _option("Address to listen on (0.0.0.0); there is no TLS.")] = None,
    grpc_port: Annotated[int | None, _option("gRPC port (50051); 0 picks a free one.")] = None,
    http_port: Annotated[
        int | None, _option("Port of /metrics and /health (8080); 0 picks a free one.")
    ] = None,
    threads: Annotated[int | None, _option("Engine threads; unset: one per usable core.")] = None,
    weights: Annotated[str | None, _option("auto, or float32: dequantized at load.")] = None,
    kv: Annotated[str | None, _option("Keys and values: auto, float16 or float32.")] = None,
    instruction_set: Annotated[
        str | None, _option("avx512, avx2 or portable; unset: the best that the CPU has.")
    ] = None,
    kv_slots: Annotated[int | None, _option("Tokens that the KV cache holds.")] = None,
    max_step_nodes: Annotated[int | None, _option("Most nodes in one engine step.")] = None,
    max_step_ms: Annotated[float | None, _option("Longest engine step, as predicted.")] = None,
    max_queue: Annotated[int | None, _option("Most requests waiting or running.")] = None,
    tmax_share: Annotated[float | None, _option("Share of tmax_ms that may be spent here (0.8).")] = None,
    network_margin_ms: Annotated[float | None, _option("Kept back from a gRPC deadline (2).")] = None,
    max_budget_ms: Annotated[float | None, _option("Longest that a request may take.")] = None,
    cache_bytes: Annotated[int | None, _option("Memory for cached targeting answers; 0: none.")] = None,
    creative_cache_bytes: Annotated[int | None, _option("Memory for cached creatives; 0: none.")] = None,
    cache_fresh_seconds: Annotated[float | None, _option("How long a cached answer is fresh (3600).")] = None,
    cache_stale_seconds: Annotated[
        float | None, _option("How long after that it may stand in (82800).")
    ] = None,
    cache_redis_url: Annotated[str | None, _option("A second cache, shared by replicas.")] = None,
    cache_fills: Annotated[int | None, _option("Most answers waiting to be computed from idle time.")] = None,
    beam_width: Annotated[int | None, _option("Default beam of the targeting search.")] = None,
    prior_weight: Annotated[float | None, _option("Default weight of the prior correction.")] = None,
    ranker: Annotated[str | None, _option("What RANKER_AUTO means: retriever, llm or both.")] = None,
    retriever_weight: Annotated[
        float | None, _option("Weight of the retriever's score in RANKER_BOTH.")
    ] = None,
    max_context_tokens: Annotated[int | None, _option("Most prompt tokens taken from a context.")] = None,
    max_message_bytes: Annotated[int | None, _option("Largest request.")] = None,
    drain_seconds: Annotated[float | None, _option("Grace for running requests after SIGTERM.")] = None,
    admin: Annotated[bool | None, _option("Allow Admin.LoadCatalog and Admin.LoadModel.")] = None,
    log_level: Annotated[str | None, _option("debug, info, warning or error.")] = None,
) -> None:
    """Serve targeting and creatives over gRPC, with metrics and health over HTTP.

    Settings come from --config, then BIDTRIE_… environment variables, then flags; later wins.

    Example: bidtrie serve --catalogs iab-content --threads 2
    """
    flags = {name: value for name, value in locals().items() if name != "config"}
    for name, value in (("catalogs", catalogs), ("levels", levels)):
        if value is not None:
            flags[name] = [each.strip() for each in value.split(",") if each.strip()]

    import uvloop

    from bidtrie.server.deadline import Budget
    from bidtrie.server.logs import configure_logging
    from bidtrie.server.metrics import Metrics
    from bidtrie.server.serve import ServerOptions
    from bidtrie.server.serve import serve as run
    from bidtrie.serving.runtime import Runtime
    from bidtrie.settings import load_settings

    settings = load_settings(config, flags=flags)
    # The engines' thread and the event loop take turns: 5 ms, Python's default, is longer than most steps.
    sys.setswitchinterval(0.0005)
    configure_logging(settings.log_level)
    metrics = Metrics()
    options = ServerOptions(
        host=settings.host,
        grpc_port=settings.grpc_port,
        http_port=settings.http_port,
        max_message_bytes=settings.max_message_bytes,
        drain_seconds=settings.drain_seconds,
        admin=settings.admin,
        budget=Budget(
            tmax_share=settings.tmax_share,
            network_margin_s=settings.network_margin_ms / 1000,
            max_s=settings.max_budget_ms / 1000,
        ),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(options, lambda: Runtime(settings, metrics), metrics))
