"""A report on compressed models: one HTML file that needs nothing else, and the same as JSON beside it."""

import base64
import html
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bidtrie import __version__
from bidtrie.compress.measured import DENSE, Measured
from bidtrie.errors import InvalidInput
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.describe import describe

_LAYER = re.compile(r"model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)_proj")
_LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


def check_report(file: Path) -> None:
    """Raise InvalidInput where no report could be written to this file, before time is spent."""
    if file.suffix.lower() not in (".html", ".htm"):
        raise InvalidInput.of("--out", f"{file.name}, expected a name that ends in .html")
    if not file.resolve().parent.is_dir():
        raise InvalidInput.of("--out", f"{file.resolve().parent}: no such folder")
    if find_spec("matplotlib") is None:
        raise InvalidInput.of("--out", 'needs matplotlib: pip install "bidtrie[plots]"')


def report_of(
    artefacts: Mapping[str, Checkpoint],
    measured: Mapping[str, Measured] | None = None,
    products: Sequence[str] = (),
    measured_on: str | None = None,
) -> dict[str, Any]:
    """All that the report says, for JSON. `measured`: by the artefacts' names and `DENSE`, on the text `measured_on`.

    products: what the samples were written for. Raises InvalidInput naming a model that is no artefact.
    """
    for name, each in artefacts.items():
        if each.compression is None:
            raise InvalidInput.of(name, "is not compressed, expected a folder that bidtrie compress wrote")
    dense = None if measured is None else measured[DENSE]
    return {
        "bidtrie_version": __version__,
        "measured_on": measured_on,
        "dense": None if dense is None else _measured(dense, dense),
        "products": list(products),
        "artefacts": [
            _artefact(name, each, None if measured is None else measured[name], dense)
            for name, each in artefacts.items()
        ],
    }


def _measured(one: Measured, dense: Measured) -> dict[str, Any]:
    return {
        "perplexity": one.fidelity.perplexity,
        "ratio_perplexity": one.fidelity.perplexity / dense.fidelity.perplexity,
        "divergence_nats": one.fidelity.divergence,
        "same_first_token": one.fidelity.same_first,
        "tokens": one.fidelity.tokens,
        "decode_ms": one.decode_ms,
        "ratio_speed": dense.decode_ms / one.decode_ms,
        "samples": list(one.samples),
    }


def _artefact(
    name: str, checkpoint: Checkpoint, measured: Measured | None, dense: Measured | None
) -> dict[str, Any]:
    described = describe(checkpoint)
    compression = described["compression"]
    allocation = None if checkpoint.compression is None else checkpoint.compression.allocation
    losses: Mapping[str, Any] = {} if allocation is None else allocation.get("losses", {})
    linears = [
        {**each, "predicted_loss": losses.get(each["name"], {}).get(each["format"])}
        for each in compression["linears"]
    ]
    return {
        "name": name,
        "content_hash": checkpoint.content_hash,
        "method": compression["method"],
        "options": compression["options"],
        "reference": compression["reference"],
        "size_bytes": described["size_bytes"],
        "layers_bits_per_weight": compression["layers_bits_per_weight"],
        "head_bits_per_weight": compression["head_bits_per_weight"],
        "allocation": allocation,
        "linears": linears,
        "layers": _layers(linears),
        **({} if measured is None or dense is None else _measured(measured, dense)),
    }


def _layers(linears: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Bits, loss and error of each layer's linears together."""
    by_layer: dict[int, list[Mapping[str, Any]]] = {}
    for each in linears:
        if found := _LAYER.fullmatch(each["name"]):
            by_layer.setdefault(int(found[1]), []).append(each)
    layers = []
    for layer, members in sorted(by_layer.items()):
        weights = [each["shape"][0] * each["shape"][1] for each in members]
        losses = [each["predicted_loss"] for each in members]
        layers.append(
            {
                "layer": layer,
                "bits_per_weight": 8 * sum(each["size_bytes"] for each in members) / sum(weights),
                "predicted_loss": None if None in losses else sum(losses),
                "relative_error": float(
                    np.average([each["relative_error"] for each in members], weights=weights)
                ),
            }
        )
    return layers


def write_report(report: Mapping[str, Any], file: Path) -> Path:
    """Write the HTML to `file` and the JSON beside it; each whole, or not at all. Returns the JSON's path.

    Raises InvalidInput where they cannot be written.
    """
    check_report(file)
    beside = file.with_suffix(".json")
    _write(beside, json.dumps(report, indent=1) + "\n")
    _write(file, render(report))
    return beside


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise InvalidInput.of("--out", f"{file} cannot be written: {error.strerror}") from error


def render(report: Mapping[str, Any]) -> str:
    """The page; every text from a model or a file is escaped."""
    from bidtrie.compress.report_plots import front_plot

    artefacts = report["artefacts"]
    parts = [f"<h1>Compression of {_text(artefacts[0]['reference']['name'])}</h1>", _summary(report)]
    if report["dense"] is not None:
        parts += [
            "<h2>Speed against quality</h2>",
            f"<p>On {_text(report['measured_on'])}, {report['dense']['tokens']:,} tokens, through the native engine; "
            "the dense model in float32. The line joins what nothing else beats in both.</p>",
            _image(front_plot(artefacts), "perplexity over milliseconds and over bits"),
            _samples(report),
        ]
    for each in artefacts:
        parts += _section(each)
    return _PAGE.format(
        title=_text(f"Compression of {artefacts[0]['reference']['name']}"), body="\n".join(parts)
    )


def _summary(report: Mapping[str, Any]) -> str:
    header = ["artefact", "method", "bits a weight", "of the head", "MB"]
    dense = report["dense"]
    if dense is not None:
        header += ["perplexity", "of dense", "KL, nats", "same first token", "ms a token", "times as fast"]
    rows = []
    for each in report["artefacts"]:
        row = [
            each["name"],
            each["method"],
            f"{each['layers_bits_per_weight']:.3f}",
            f"{each['head_bits_per_weight']:.3f}",
            f"{each['size_bytes'] / 1e6:.1f}",
        ]
        rows.append(row + (_figures(each) if dense is not None else []))
    if dense is not None:
        rows.append(["dense, float32", "", "32", "32", "", *_figures(dense)])
    return _table(header, rows)


def _figures(measured: Mapping[str, Any]) -> list[str]:
    return [
        f"{measured['perplexity']:.2f}",
        f"{measured['ratio_perplexity']:.3f}",
        f"{measured['divergence_nats']:.4f}",
        f"{measured['same_first_token']:.1%}",
        f"{measured['decode_ms']:.2f}",
        f"{measured['ratio_speed']:.2f}",
    ]


def _samples(report: Mapping[str, Any]) -> str:
    if not report["products"]:
        return ""
    models = [("dense", report["dense"]), *((each["name"], each) for each in report["artefacts"])]
    rows = [
        [product, *(each["samples"][i] for _, each in models)] for i, product in enumerate(report["products"])
    ]
    note = "<p>Greedy texts in the service's prompt, without the constraints that it puts on them.</p>"
    return f"<h2>Samples</h2>{note}" + _table(["product", *(name for name, _ in models)], rows, words=True)


def _section(artefact: Mapping[str, Any]) -> list[str]:
    from bidtrie.compress.report_plots import check_plot, layers_plot

    options = ", ".join(f"{key} {value}" for key, value in artefact["options"].items())
    reference = artefact["reference"]
    parts = [
        f"<h2>{_text(artefact['name'])}</h2>",
        f"<p>Method {_text(artefact['method'])}; {_text(options)}. Reference: {_text(reference['name'])}, content hash "
        f"{_text(reference['content_hash'])}. Content hash {_text(artefact['content_hash'])}.</p>",
    ]
    if (allocation := artefact["allocation"]) is not None:
        parts.append(_allocation(allocation))
    if artefact["layers"]:
        parts.append(_image(layers_plot(artefact), "bits and loss of each layer"))
    parts.append(_formats(artefact["linears"]))
    if allocation is not None and allocation.get("check", {}).get("samples"):
        parts += [
            "<h3>Predicted against measured</h3>",
            "<p>Single linears replaced in the dense model. Rank correlation (Spearman): "
            f"{_correlations(allocation['check'])}.</p>",
            _image(check_plot(allocation["check"]["samples"]), "measured against predicted losses"),
        ]
    return parts


def _allocation(allocation: Mapping[str, Any]) -> str:
    budget = allocation["budget"]
    unit = "bits a weight" if budget["unit"] == "bits" else "ms"
    return (
        f"<p>Budget {budget['limit']:g} {unit}, {allocation['spent']:.3f} spent. The linears' losses are predicted to "
        f"add up to {allocation['predicted_loss']:.4f} nats a token; no allocation gets below "
        f"{allocation['lower_bound']:.4f}.</p>"
    )


def _correlations(check: Mapping[str, Any]) -> str:
    every = {"all": check["spearman"], **check["spearman_by_format"]}
    return ", ".join(
        f"{_text(name)} {'undefined' if value is None else format(value, '.2f')}"
        for name, value in every.items()
    )


def _formats(linears: Sequence[Mapping[str, Any]]) -> str:
    """Layers by linears, coloured by bits; embedding and head in a line of text."""
    cells: dict[int, dict[str, Mapping[str, Any]]] = {}
    others = []
    for each in linears:
        if found := _LAYER.fullmatch(each["name"]):
            cells.setdefault(int(found[1]), {})[found[2]] = each
        else:
            others.append(f"{each['name']}: {each['format']}, error {each['relative_error']:.4f}")
    rows = []
    for layer, members in sorted(cells.items()):
        row = [f"<td>{layer}</td>"]
        for linear in _LINEARS:
            each = members[linear]
            loss = each["predicted_loss"]
            title = (
                f"{each['bits_per_weight']:g} bits a weight, relative error {each['relative_error']:.4f}"
                + ("" if loss is None else f", predicted loss {loss:.3g} nats")
            )
            row.append(
                f'<td title="{_text(title)}" style="background:{_shade(each["bits_per_weight"])}">'
                f"{_text(each['format'])}<br><small>{each['relative_error']:.3f}"
                f"{'' if loss is None else f' · {loss:.1e}'}</small></td>"
            )
        rows.append(f"<tr>{''.join(row)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("layer", *_LINEARS))
    note = "<p>Format, and below it the relative error of the weights and the predicted loss in nats a token.</p>"
    table = f'{note}<table class="formats"><tr>{head}</tr>{"".join(rows)}</table>' if rows else ""
    return table + "".join(f"<p>{_text(each)}</p>" for each in others)


def _shade(bits: float) -> str:
    """From white at 1.5 bits to blue at 8 and more."""
    share = min(max((bits - 1.5) / 6.5, 0.0), 1.0)
    return f"rgb({255 - round(150 * share)},{255 - round(95 * share)},{255 - round(30 * share)})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    head = "".join(f"<th>{_text(each)}</th>" for each in header)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{"words" if words else "figures"}"><tr>{head}</tr>{body}</table>'


def _image(png: bytes, description: str) -> str:
    return f'<img alt="{_text(description)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'


def _text(value: object) -> str:
    return html.escape(str(value))


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #2e3440; max-width: 1100px; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse; margin: 1em 0 }}
th, td {{ padding: 0.25em 0.7em; border-bottom: 1px solid #d8dee9; text-align: left; vertical-align: top }}
.figures td:not(:first-child), .figures th:not(:first-child) {{ text-align: right }}
.formats {{ font-size: 11px; line-height: 1.3 }}
.formats td {{ padding: 0.2em 0.5em; border: 1px solid #fff }}
.words {{ font-size: 13px }}
small {{ color: #4c566a }}
img {{ max-width: 100%; display: block; margin: 1em 0 }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
