"""How a weight is stored in groups of columns that share a scale."""

from dataclasses import asdict, dataclass
from typing import Any

from bidtrie.errors import ModelError
from bidtrie.models.fields import Fields

#: Columns that a scale may be shared by.
GROUP_SIZES = (16, *range(32, 257, 32))
#: How many of every four columns each pattern keeps.
KEPT_OF_FOUR = {"dense": 4, "2:4": 2, "1:4": 1}


@dataclass(frozen=True, slots=True)
class GroupFormat:
    """Width and meaning of a weight's codes.

    bits: 8 or 4 a code.
    group_size: columns that share a scale (and a minimum), one of `GROUP_SIZES`.
    minimum: w = scale * code + minimum, codes 0 to 15; 4-bit and dense only.
    table: w = scale * table[code] with 16 small integers for the whole weight; 4-bit only, not with `minimum`.
    pattern: "dense", or how many of every four columns are kept: "2:4", "1:4"; those are 4-bit and without `minimum`.

    Without `minimum` and `table`, w = scale * code with the signed codes of 8 bits, and scale * (code - 8) with those
    of 4. Raises ModelError, naming the field, for any other combination.
    """

    bits: int
    group_size: int
    minimum: bool = False
    table: bool = False
    pattern: str = "dense"

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ModelError(f"bits is {self.bits}, expected 4 or 8")
        if self.group_size not in GROUP_SIZES:
            raise ModelError(f"group_size is {self.group_size}, expected 16 or a multiple of 32 up to 256")
        if self.pattern not in KEPT_OF_FOUR:
            raise ModelError(
                f"pattern is {self.pattern[:40]!r}, expected one of {', '.join(map(repr, KEPT_OF_FOUR))}"
            )
        if self.bits == 8:
            for field, neutral in [("minimum", False), ("table", False), ("pattern", "dense")]:
                if (value := getattr(self, field)) != neutral:
                    raise ModelError(f"{field} is {value!r} with bits 8, expected {neutral!r}")
        if self.minimum and self.table:
            raise ModelError("table is True with a minimum, expected one of them at most")
        if self.minimum and self.pattern != "dense":
            raise ModelError(f"minimum is True with the pattern {self.pattern!r}, expected False")

    @property
    def name(self) -> str:
        """For people: "int4-min-g32", "2:4-int4-table-g64"."""
        parts = [
            *([] if self.pattern == "dense" else [self.pattern]),
            f"int{self.bits}",
            *(["min"] if self.minimum else []),
            *(["table"] if self.table else []),
            f"g{self.group_size}",
        ]
        return "-".join(parts)

    def __str__(self) -> str:
        """The name, so that `str(tensor.format)` describes every kind of tensor."""
        return self.name

    def kept(self, columns: int) -> int:
        """How many weights of a row of so many columns (a multiple of 4) are stored."""
        return columns // 4 * KEPT_OF_FOUR[self.pattern]

    def groups(self, columns: int) -> int:
        """How many groups a row of so many columns has; the last one may be short."""
        return -(-columns // self.group_size)

    def to_json(self) -> dict[str, Any]:
        """The fields, for a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Fields) -> "GroupFormat":
        """What `to_json` gave. Raises ModelError for a key that is missing, unknown or of the wrong type."""
        fields.expect_only("bits", "group_size", "minimum", "table", "pattern")
        bits, group_size = fields.integer("bits"), fields.integer("group_size")
        minimum, table = fields.flag("minimum"), fields.flag("table")
        try:
            return cls(bits, group_size, minimum, table, fields.text("pattern"))
        except ModelError as error:
            raise ModelError(f"{fields.source}: {error}") from None
