"""What compressing a model decided, and the evidence: `compression.json` of an artefact."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bidtrie import __version__
from bidtrie.errors import ModelError
from bidtrie.models.fields import Fields


@dataclass(frozen=True, slots=True)
class LinearRecord:
    """One compressed linear.

    format: the name of its GroupFormat.
    bits_per_weight: all stored bits over the dense count of weights.
    relative_error: ||W - Wq|| / ||W|| in the Frobenius norm, W being the reference's weight; 0 if W is 0.
    proxy_loss: mean squared error of the outputs on the calibration text, summed over rows, when the linear was solved
        (before any recovery); None without calibration.
    """

    format: str
    bits_per_weight: float
    relative_error: float
    proxy_loss: float | None = None


@dataclass(frozen=True, slots=True)
class CompressionRecord:
    """How an artefact came about.

    method: the name of the method, as the command line has it.
    options: the method's settings, as the command line has them.
    reference_name, reference_hash: name and content hash of the checkpoint that was compressed.
    linears: by module, for example `model.layers.0.self_attn.q_proj`; those that are absent are float32.
    bidtrie_version: what wrote it.
    allocation: where formats were chosen under a budget: the budget, predicted losses of every choice, and how well a
        sample of them was predicted (see `compress.budget.Analysis.record`); for people and reports, nothing computes
        with it.
    """

    method: str
    options: Mapping[str, Any]
    reference_name: str
    reference_hash: str
    linears: Mapping[str, LinearRecord]
    bidtrie_version: str = __version__
    allocation: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The record for a JSON object."""
        return {
            "bidtrie_version": self.bidtrie_version,
            "method": self.method,
            "options": dict(self.options),
            "reference": {"name": self.reference_name, "content_hash": self.reference_hash},
            "linears": {name: asdict(linear) for name, linear in self.linears.items()},
            **({} if self.allocation is None else {"allocation": dict(self.allocation)}),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> "CompressionRecord":
        """What `to_json` gave; other keys are left to the caller. Raises ModelError naming the key that is wrong."""
        reference, linears = fields.section("reference"), fields.section("linears")
        reference.expect_only("name", "content_hash")
        return cls(
            method=fields.text("method"),
            options=fields.section("options").values,
            reference_name=reference.text("name"),
            reference_hash=reference.text("content_hash"),
            linears={name: _linear(linears.section(name)) for name in linears.values},
            bidtrie_version=fields.text("bidtrie_version"),
            allocation=fields.section("allocation").values if "allocation" in fields else None,
        )


def _linear(fields: Fields) -> LinearRecord:
    fields.expect_only("format", "bits_per_weight", "relative_error", "proxy_loss")
    record = LinearRecord(
        format=fields.text("format"),
        bits_per_weight=fields.positive("bits_per_weight"),
        relative_error=fields.number("relative_error"),
        proxy_loss=fields.number("proxy_loss") if "proxy_loss" in fields else None,
    )
    if record.relative_error < 0:
        raise ModelError(f"{fields.source}: relative_error is {record.relative_error:g}, expected 0 or more")
    return record
