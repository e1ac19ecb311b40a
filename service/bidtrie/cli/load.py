"""`bidtrie load`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidtrie.errors import InvalidInput
from bidtrie.load.options import DEFAULT_SECONDS, Arrivals, Call, LoadOptions, Priority, ScheduleName
from bidtrie.requests import Ranker

if TYPE_CHECKING:
    from rich.console import Console

    from bidtrie.load.report import LoadReport
    from bidtrie.load.runner import Progress
    from bidtrie.load.statistics import Latency

# A generator that sends this much later than planned measures itself as well.
_LAG_MS = 5.0
_INTERRUPTED = 130


def load(
    address: Annotated[str, typer.Option("--target", help="HOST:PORT of the server.")] = "127.0.0.1:50051",
    call: Annotated[Call, typer.Option(help="What is asked for: segments, or ad texts.")] = Call.TARGET,
    rps: Annotated[float | None, typer.Option(help="Requests a second; 50 without it.")] = None,
    load_schedule: Annotated[
        ScheduleName, typer.Option(help="const: --rps; step and line: from --load-start by --load-step.")
    ] = ScheduleName.CONST,
    load_start: Annotated[float | None, typer.Option(help="First rate, requests a second.")] = None,
    load_end: Annotated[float | None, typer.Option(help="Rate that is kept once it is reached.")] = None,
    load_step: Annotated[
        float | None, typer.Option(help="Added every --load-step-duration (step), or a second (line).")
    ] = None,
    load_step_duration: Annotated[float | None, typer.Option(help="Seconds of a step.")] = None,
    duration: Annotated[
        float | None,
        typer.Option(help=f"Seconds, warm-up not counted; {DEFAULT_SECONDS:g} without it and --total."),
    ] = None,
    total: Annotated[int | None, typer.Option(help="Requests, warm-up not counted.")] = None,
    arrivals: Annotated[
        Arrivals, typer.Option(help="At random like real traffic, or evenly spaced.")
    ] = Arrivals.POISSON,
    seed: Annotated[int | None, typer.Option(help="Same seed, same requests at the same times.")] = None,
    warm_up: Annotated[float, typer.Option(help="Seconds at the first rate, sent but not counted.")] = 0.0,
    pages: Annotated[
        Path | None, typer.Option(help="TSV of `bidtrie eval targeting`: its pages in turn.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Every request is new, so that no cache helps (the default).")
    ] = False,
    repeat: Annotated[
        int | None, typer.Option(help="This many distinct requests, by Zipf's law, so that caches help.")
    ] = None,
    catalog: Annotated[str, typer.Option(help="Catalog; the server's default without it.")] = "",
    top_k: Annotated[int | None, typer.Option(help="Segments to return, 1 to 50.")] = None,
    ranker: Annotated[Ranker, typer.Option(help="Who ranks.")] = Ranker.AUTO,
    priority: Annotated[
        Priority | None,
        typer.Option(help="Whose work goes first, for --call generate: bid if not told, or pregeneration."),
    ] = None,
    tmax_ms: Annotated[int | None, typer.Option(help="The auction's time, as requests tell it.")] = None,
    timeout_ms: Annotated[
        float | None, typer.Option(help="gRPC deadline; 1,000 for target, 30,000 for generate without it.")
    ] = None,
    no_partial: Annotated[
        bool, typer.Option("--no-partial", help="Take no answers that were cut short.")
    ] = False,
    no_fallback: Annotated[bool, typer.Option("--no-fallback", help="Take no stand-ins.")] = False,
    connections: Annotated[int, typer.Option(help="Connections, used in turn.")] = 1,
    max_in_flight: Annotated[
        int, typer.Option(help="Requests without answer beyond which the generator drops, and counts it.")
    ] = 1_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the JSON report to this file too.")] = None,
    details: Annotated[
        bool,
        typer.Option("--details", help="Put a row for every request into the JSON: with --json or --output."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help=r'Draw the run into this .png or .svg; needs "bidtrie\[plots]".')
    ] = None,
) -> None:
    """Put load on a running server, in open loop: requests leave on time, however slow the answers are.

    Latency counts from the intended time of sending, so that a server which stalls cannot hide it. The JSON report has
    the shape of ghz's, and goodput, outcomes over time and the generator's own lag under `bidtrie`. Ctrl-C ends the run
    early and reports what was done.

    Example: bidtrie load --rps 60 --duration 30 --tmax-ms 100 --warm-up 2

    A ramp into overload: bidtrie load --load-schedule step --load-start 20 --load-step 20 --load-step-duration 10
    --load-end 200 --duration 100 --tmax-ms 100 --plot ramp.png
    """
    if load_schedule is not ScheduleName.CONST and rps is not None:
        raise InvalidInput.of("--rps", f"is for --load-schedule const; {load_schedule} has --load-start")
    options = LoadOptions(
        target=address,
        call=call,
        load_schedule=load_schedule,
        load_start=load_start,
        load_end=load_end,
        load_step=load_step,
        load_step_duration=load_step_duration,
        duration=duration,
        total=total,
        arrivals=arrivals,
        seed=seed,
        warm_up=warm_up,
        pages=pages,
        fresh=fresh,
        repeat=repeat,
        catalog=catalog,
        top_k=top_k,
        ranker=ranker,
        priority=priority,
        tmax_ms=tmax_ms,
        timeout_ms=timeout_ms,
        allow_partial=not no_partial,
        allow_fallback=not no_fallback,
        connections=connections,
        max_in_flight=max_in_flight,
        **({} if rps is None else {"rps": rps}),
    )
    options.check()
    if details and not (as_json or output):
        raise InvalidInput.of("--details", "says what the JSON holds, expected beside --json or --output")
    for flag, file in (("--output", output), ("--plot", plot)):
        if file is not None and (file.is_dir() or not os.access(file.parent, os.W_OK)):
            raise InvalidInput.of(flag, f"{file} cannot be written")
    if plot is not None:
        from bidtrie.figure import check_plot

        check_plot(plot)

    report = _run(options, quiet=as_json)
    text = json.dumps(report.to_json(details=details)) if as_json or output else ""
    if output is not None:
        _write(output, text)
    if plot is not None:
        from bidtrie.load.plot import write_plot

        write_plot(report, plot)
    if as_json:
        print(text)
    else:
        from rich.console import Console

        _print(report, Console())
    if report.interrupted:
        raise typer.Exit(_INTERRUPTED)


def _run(options: LoadOptions, *, quiet: bool) -> "LoadReport":
    from bidtrie.cli.progress import progress_bar
    from bidtrie.load.runner import run

    bar = progress_bar()
    # Where nobody watches, a bar would leave an empty line.
    bar.disable = quiet or not bar.console.is_terminal
    with bar:
        task = bar.add_task("requests", total=None)

        def show(progress: "Progress") -> None:
            bar.update(task, completed=progress.sent, total=progress.planned)

        return run(options, on_progress=None if bar.disable else show)


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidInput.of("--output", f"{file} cannot be written: {error.strerror}") from error


def _print(report: "LoadReport", console: "Console") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    summary = report.summary
    console.print(
        f"{summary.offered:,} requests in {summary.window_s:.1f} s: {summary.offered_rps:,.1f} a second offered, "
        f"[bold]{summary.goodput_rps:,.1f} a second answered within {summary.budget_ms:g} ms[/bold] "
        f"(seed {report.seed})"
    )
    headings = ("count", "share", "p50", "p90", "p99", "p99.9", "max")
    # Narrow, so that 80 columns hold it.
    statuses = Table(
        title="By status; latencies in ms", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    answers = Table(title="OK answers by kind", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for table, first in ((statuses, "status"), (answers, "answer")):
        table.add_column(first, no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="right")
    for status, found in summary.latency_ms.items():
        statuses.add_row(status, *_cells(found.count, summary.offered, found))
        if status == "OK" and summary.late:
            statuses.add_row("  of these late", *_cells(summary.late, summary.offered, None))
    for name, count in (("dropped here", summary.dropped), ("unfinished", summary.unfinished)):
        if count:
            statuses.add_row(name, *_cells(count, summary.offered, None))
    for field, groups in summary.answers.items():
        for value, group in groups.items():
            # What every answer is, and no answer is, says nothing.
            if len(groups) > 1 or value not in ("true", "false"):
                name = value.removeprefix("SOURCE_").lower() if field == "source" else value
                answers.add_row(f"{field} {name}", *_cells(group.count, summary.ok, group.latency_ms))
    for table in (statuses, answers):
        if table.row_count:
            name_column = table.columns[0]
            name_column.min_width = max(len(str(cell)) for cell in name_column.cells)
            console.print(table)
    for (_, message), count in sorted(report.records.errors.items(), key=lambda item: -item[1])[:5]:
        console.print(f"{count:,} x {message}", markup=False, highlight=False)
    _print_lag(report, console)


def _cells(count: int, of: int, latency: "Latency | None") -> list[str]:
    shown = ["", "", "", "", ""]
    if latency is not None:
        p50, p90, _, p99, p999 = latency.percentiles
        shown = [_milliseconds(value) for value in (p50, p90, p99, p999, latency.max)]
    return [f"{count:,}", f"{count / max(of, 1):.1%}", *shown]


def _milliseconds(value: float) -> str:
    return f"{value:,.1f}" if value < 1_000 else f"{value:.0f}"


def _print_lag(report: "LoadReport", console: "Console") -> None:
    lag = report.summary.send_lag_ms
    if lag is not None:
        console.print(
            f"sent after the intended time: p50 {lag.p50:.2f} ms, p99 {lag.p99:.2f}, max {lag.max:.2f}"
        )
        if lag.p99 > _LAG_MS:
            console.print(
                "[yellow]The generator could not keep up: its own lag is in the latencies.[/yellow]"
            )
    if report.summary.dropped:
        console.print(
            "[yellow]Dropped requests were never sent: raise --max-in-flight, or lower the rate.[/yellow]"
        )
    if report.interrupted:
        console.print("[yellow]Interrupted: this is what was done until then.[/yellow]")
