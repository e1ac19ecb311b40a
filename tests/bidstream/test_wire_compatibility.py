"""Messages put together byte by byte from the field numbers of OpenRTB's specification decode to the right fields.

A wrong number or wire type in our .proto file leaves a field unset, or fails to parse.
"""

from bidstream.wire import data, double, integer, varint
from bidtrie.openrtb.v2.openrtb_pb2 import DESCRIPTOR, BidRequest, NativeRequest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

S, I, B, D, M = "string", "int32", "bool", "double", "message"  # noqa: E741

# name: (number, type); a trailing "*" is repeated. From the public specification, not from our .proto file.
FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "BidRequest": {
        "id": (1, S), "imp": (2, M + "*"), "site": (3, M), "app": (4, M), "dooh": (22, M), "device": (5, M),
        "user": (6, M), "at": (7, I), "tmax": (8, I), "wseat": (9, S + "*"), "allimps": (10, B), "cur": (11, S + "*"),
        "bcat": (12, S + "*"), "badv": (13, S + "*"), "regs": (14, M), "test": (15, B), "bapp": (16, S + "*"),
        "bseat": (17, S + "*"), "wlang": (18, S + "*"), "source": (19, M), "wlangb": (20, S + "*"), "cattax": (21, I),
        "acat": (23, S + "*"),
    },
    "BidRequest.Imp": {
        "id": (1, S), "banner": (2, M), "video": (3, M), "displaymanager": (4, S), "instl": (6, B), "tagid": (7, S),
        "bidfloor": (8, D), "bidfloorcur": (9, S), "pmp": (11, M), "secure": (12, B), "native": (13, M),
        "exp": (14, I), "audio": (15, M), "metric": (17, M + "*"), "rwdd": (18, B),
    },
    "BidRequest.Banner": {
        "w": (1, I), "h": (2, I), "id": (3, S), "pos": (4, I), "btype": (5, I + "*"), "battr": (6, I + "*"),
        "mimes": (7, S + "*"), "api": (10, I + "*"), "format": (15, M + "*"),
    },
    "BidRequest.Format": {"w": (1, I), "h": (2, I)},
    "BidRequest.Native": {"request": (1, S), "request_native": (50, M), "ver": (2, S)},
    "NativeRequest": {"assets": (6, M + "*")},
    "NativeRequest.Asset": {
        "id": (1, I), "required": (2, B), "title": (3, M), "img": (4, M), "video": (5, M), "data": (6, M),
    },
    "NativeRequest.Title": {"len": (1, I)},
    "NativeRequest.Data": {"type": (1, I), "len": (2, I)},
    "BidRequest.Site": {
        "id": (1, S), "name": (2, S), "domain": (3, S), "cat": (4, S + "*"), "sectioncat": (5, S + "*"),
        "pagecat": (6, S + "*"), "page": (7, S), "privacypolicy": (8, B), "ref": (9, S), "search": (10, S),
        "publisher": (11, M), "content": (12, M), "keywords": (13, S), "mobile": (15, B), "cattax": (16, I),
        "kwarray": (18, S + "*"),
    },
    "BidRequest.App": {
        "id": (1, S), "name": (2, S), "domain": (3, S), "cat": (4, S + "*"), "sectioncat": (5, S + "*"),
        "pagecat": (6, S + "*"), "ver": (7, S), "bundle": (8, S), "privacypolicy": (9, B), "paid": (10, B),
        "publisher": (11, M), "content": (12, M), "keywords": (13, S), "storeurl": (16, S), "cattax": (17, I),
        "kwarray": (19, S + "*"),
    },
    "BidRequest.Publisher": {"id": (1, S), "name": (2, S), "cat": (3, S + "*"), "domain": (4, S), "cattax": (5, I)},
    "BidRequest.Content": {
        "id": (1, S), "title": (3, S), "series": (4, S), "season": (5, S), "url": (6, S), "cat": (7, S + "*"),
        "keywords": (9, S), "contentrating": (10, S), "livestream": (13, B), "len": (16, I), "language": (19, S),
        "context": (20, I), "genre": (22, S), "cattax": (27, I), "data": (28, M + "*"), "langb": (29, S),
        "kwarray": (32, S + "*"),
    },
    "BidRequest.User": {
        "id": (1, S), "buyeruid": (2, S), "yob": (3, I), "gender": (4, S), "keywords": (5, S), "customdata": (6, S),
        "geo": (7, M), "data": (8, M + "*"), "kwarray": (9, S + "*"), "consent": (10, S), "eids": (11, M + "*"),
    },
    "BidRequest.Data": {"id": (1, S), "name": (2, S), "segment": (3, M + "*")},
    "BidRequest.Segment": {"id": (1, S), "name": (2, S), "value": (3, S)},
    "BidRequest.EID": {"source": (1, S), "uids": (2, M + "*")},
    "BidRequest.UID": {"id": (1, S), "atype": (2, I)},
    "BidRequest.Geo": {
        "lat": (1, D), "lon": (2, D), "country": (3, S), "region": (4, S), "metro": (6, S), "city": (7, S),
        "zip": (8, S), "type": (9, I),
    },
    "BidRequest.Device": {
        "dnt": (1, B), "ua": (2, S), "ip": (3, S), "geo": (4, M), "ipv6": (9, S), "language": (11, S),
        "make": (12, S), "model": (13, S), "os": (14, S), "osv": (15, S), "devicetype": (18, I), "ifa": (20, S),
        "lmt": (23, B), "w": (25, I), "h": (26, I), "langb": (32, S),
    },
    "BidRequest.Regs": {
        "coppa": (1, B), "gpp": (2, S), "gpp_sid": (3, I + "*"), "gdpr": (4, B), "us_privacy": (5, S), "ext": (99, M),
    },
    "BidRequest.Regs.Ext": {"gpc": (3, S)},
    "BidRequest.Metric": {"type": (1, S), "value": (2, D), "vendor": (3, S)},
}  # fmt: skip
_KINDS = {
    FieldDescriptor.TYPE_STRING: S, FieldDescriptor.TYPE_INT32: I, FieldDescriptor.TYPE_BOOL: B,
    FieldDescriptor.TYPE_DOUBLE: D, FieldDescriptor.TYPE_MESSAGE: M,
}  # fmt: skip


def all_messages(descriptor: Descriptor) -> dict[str, Descriptor]:
    name = descriptor.full_name.removeprefix("com.iabtechlab.openrtb.v2.")
    found = {name: descriptor}
    for nested in descriptor.nested_types:
        found |= all_messages(nested)
    return found


def test_every_field_has_the_number_and_type_of_the_specification() -> None:
    messages = all_messages(BidRequest.DESCRIPTOR) | all_messages(NativeRequest.DESCRIPTOR)
    ours = {
        name: {
            field.name: (field.number, _KINDS[field.type] + "*" * field.is_repeated)
            for field in message.fields
        }
        for name, message in messages.items()
        if message.fields
    }
    assert ours == FIELDS


def test_unset_scalars_are_unknown_not_zero() -> None:
    for message in (all_messages(BidRequest.DESCRIPTOR) | all_messages(NativeRequest.DESCRIPTOR)).values():
        assert all(field.is_repeated or field.has_presence for field in message.fields)
    assert not BidRequest().HasField("tmax")
    assert BidRequest(tmax=0).HasField("tmax")


def test_package() -> None:
    assert DESCRIPTOR.package == "com.iabtechlab.openrtb.v2"


CONTENT = (
    data(1, "c1") + data(3, "Best SUVs") + data(4, "Car Show") + data(6, "https://example.com/?q=x") + data(7, "483")
    + data(9, "suv,family car") + integer(13, 1) + integer(16, 300) + data(19, "en") + integer(20, 1)
    + data(22, "Automotive") + integer(27, 7) + data(29, "en-GB") + data(32, "suv") + data(32, "towing")
)  # fmt: skip
SITE = (
    data(1, "s1") + data(2, "Car News") + data(3, "example.com") + data(4, "IAB2") + data(6, "IAB2-1")
    + data(7, "https://example.com/suvs?user=1") + data(12, CONTENT) + integer(16, 1)
)  # fmt: skip
IMP = (
    data(1, "1")
    + data(2, integer(1, 300) + integer(2, 250) + data(10, varint(3) + varint(5)))
    + double(8, 0.5)
)
DEVICE = integer(1, 1) + data(2, "agent") + data(3, "192.0.2.7") + data(4, double(1, 48.1) + double(2, -11.5))
REGS = (
    integer(1, 1) + data(3, varint(2) + varint(7)) + integer(4, 1) + data(5, "1YNN") + data(99, data(3, "1"))
)
REQUEST = (
    data(1, "auction-1") + data(2, IMP) + data(2, IMP) + data(3, SITE) + data(5, DEVICE) + data(6, data(1, "u1"))
    + integer(7, 1) + integer(8, 120) + data(12, "IAB7") + data(14, REGS) + integer(21, 2)
)  # fmt: skip


def test_bytes_made_by_hand_decode() -> None:
    request = BidRequest.FromString(REQUEST)
    assert (request.id, request.at, request.tmax, request.cattax) == ("auction-1", 1, 120, 2)
    assert list(request.bcat) == ["IAB7"]
    assert [imp.bidfloor for imp in request.imp] == [0.5, 0.5]
    assert (request.imp[0].banner.w, request.imp[0].banner.h, list(request.imp[0].banner.api)) == (
        300,
        250,
        [3, 5],
    )
    site, content = request.site, request.site.content
    assert (site.name, list(site.cat), list(site.pagecat), site.cattax) == (
        "Car News",
        ["IAB2"],
        ["IAB2-1"],
        1,
    )
    assert (content.title, content.series, content.genre) == ("Best SUVs", "Car Show", "Automotive")
    assert (content.langb, content.livestream, content.len, content.cattax) == ("en-GB", True, 300, 7)
    assert list(content.kwarray) == ["suv", "towing"]
    assert (request.device.dnt, request.device.geo.lat, request.device.geo.lon) == (True, 48.1, -11.5)
    regs = request.regs
    assert (regs.coppa, regs.gdpr, list(regs.gpp_sid), regs.us_privacy, regs.ext.gpc) == (
        True,
        True,
        [2, 7],
        "1YNN",
        "1",
    )
    assert not _unknown(request)


def test_numbers_that_are_not_packed_decode_as_well() -> None:
    assert list(BidRequest.Banner.FromString(integer(10, 3) + integer(10, 5)).api) == [3, 5]
    assert list(BidRequest.Regs.FromString(integer(3, 2) + integer(3, 7)).gpp_sid) == [2, 7]


def test_fields_outside_the_subset_are_skipped_and_kept() -> None:
    request = BidRequest.FromString(REQUEST + data(9_999, "extension") + data(200, b"\xff\xfe"))
    assert request.id == "auction-1"
    assert request.SerializeToString().endswith(data(200, b"\xff\xfe"))
    imp = BidRequest.Imp.FromString(data(3, data(1, "video/mp4")) + data(5, "4.2"))
    assert imp.HasField("video")


def test_a_native_request() -> None:
    asset = integer(1, 1) + integer(2, 1) + data(3, integer(1, 25))
    text = integer(1, 2) + data(6, integer(1, 2) + integer(2, 90))
    native = BidRequest.Native.FromString(data(50, data(6, asset) + data(6, text)) + data(2, "1.2"))
    first, second = native.request_native.assets
    assert (native.ver, first.required, first.title.len) == ("1.2", True, 25)
    assert (second.WhichOneof("asset_oneof"), second.data.type, second.data.len) == ("data", 2, 90)


def _unknown(message: Message) -> bool:
    """Whether decoding left bytes that no field took: encoding again would keep them."""
    copy = type(message).FromString(message.SerializeToString())
    before = copy.ByteSize()
    copy.DiscardUnknownFields()
    return copy.ByteSize() != before
