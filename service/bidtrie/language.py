"""BCP 47 language tags (RFC 5646): are they well-formed, and is their language one that ISO 639 knows?"""

import re

# ISO 639-1, every code with its English name. "sh" is deprecated and left out.
_NAMES = """
aa Afar; ab Abkhaz; ae Avestan; af Afrikaans; ak Akan; am Amharic; an Aragonese; ar Arabic; as Assamese;
av Avaric; ay Aymara; az Azerbaijani; ba Bashkir; be Belarusian; bg Bulgarian; bh Bihari languages; bi
Bislama; bm Bambara; bn Bengali; bo Tibetan; br Breton; bs Bosnian; ca Catalan; ce Chechen; ch Chamorro;
co Corsican; cr Cree; cs Czech; cu Church Slavonic; cv Chuvash; cy Welsh; da Danish; de German; dv
Dhivehi; dz Dzongkha; ee Ewe; el Greek; en English; eo Esperanto; es Spanish; et Estonian; eu Basque; fa
Persian; ff Fulah; fi Finnish; fj Fijian; fo Faroese; fr French; fy West Frisian; ga Irish; gd Gaelic; gl
Galician; gn Guarani; gu Gujarati; gv Manx; ha Hausa; he Hebrew; hi Hindi; ho Hiri Motu; hr Croatian; ht
Haitian Creole; hu Hungarian; hy Armenian; hz Herero; ia Interlingua; id Indonesian; ie Interlingue; ig
Igbo; ii Sichuan Yi; ik Inupiaq; io Ido; is Icelandic; it Italian; iu Inuktitut; ja Japanese; jv Javanese;
ka Georgian; kg Kongo; ki Kikuyu; kj Kwanyama; kk Kazakh; kl Kalaallisut; km Khmer; kn Kannada; ko Korean;
kr Kanuri; ks Kashmiri; ku Kurdish; kv Komi; kw Cornish; ky Kyrgyz; la Latin; lb Luxembourgish; lg Ganda;
li Limburgish; ln Lingala; lo Lao; lt Lithuanian; lu Luba-Katanga; lv Latvian; mg Malagasy; mh
Marshallese; mi Maori; mk Macedonian; ml Malayalam; mn Mongolian; mr Marathi; ms Malay; mt Maltese; my
Burmese; na Nauru; nb Norwegian Bokmål; nd North Ndebele; ne Nepali; ng Ndonga; nl Dutch; nn Norwegian
Nynorsk; no Norwegian; nr South Ndebele; nv Navajo; ny Chichewa; oc Occitan; oj Ojibwa; om Oromo; or
Oriya; os Ossetian; pa Panjabi; pi Pali; pl Polish; ps Pashto; pt Portuguese; qu Quechua; rm Romansh; rn
Rundi; ro Romanian; ru Russian; rw Kinyarwanda; sa Sanskrit; sc Sardinian; sd Sindhi; se Northern Sami; sg
Sango; si Sinhala; sk Slovak; sl Slovenian; sm Samoan; sn Shona; so Somali; sq Albanian; sr Serbian; ss
Swati; st Sotho; su Sundanese; sv Swedish; sw Swahili; ta Tamil; te Telugu; tg Tajik; th Thai; ti
Tigrinya; tk Turkmen; tl Tagalog; tn Tswana; to Tongan; tr Turkish; ts Tsonga; tt Tatar; tw Twi; ty
Tahitian; ug Uyghur; uk Ukrainian; ur Urdu; uz Uzbek; ve Venda; vi Vietnamese; vo Volapük; wa Walloon; wo
Wolof; xh Xhosa; yi Yiddish; yo Yoruba; za Zhuang; zh Chinese; zu Zulu
"""
# ISO 639-2 codes of languages that have no two-letter code ("und" is undetermined), and the ISO 639-3
# codes of large languages that ISO 639-2 counts under a macrolanguage.
_THREE_LETTERS = """
ace ach ada ady afa afh ain akk ale alg alt ang anp apa arb arc arn arp art arw arz ast ath aus awa bad
bai bal ban bas bat bej bem ber bho bik bin bla bnt bra btk bua bug byn cad cai car cau ceb cel chb chg
chk chm chn cho chp chr chy cmc cmn cnr cop cpe cpf cpp crh crp csb cus dak dar day del den dgr din doi
dra dsb dua dum dyu efi egy eka elx enm ewo fan fat fil fiu fon frm fro frr frs fur gaa gay gba gem gez
gil gmh goh gon gor got grb grc gsw gwi hai hak haw hil him hit hmn hsb hup iba ijo ilo inc ine inh ira
iro jbo jpr jrb kaa kab kac kam kar kaw kbd kha khi kho kmb kok kos kpe krc krl kro kru kum kut lad lah
lam lez lol loz lua lui lun luo lus mad mag mai mak man map mas mdf mdr men mga mic min mkh mnc mni mno
moh mos mun mus mwl mwr myn myv nah nai nan nap nds new nia nic niu nog non nqo nso nub nwc nym nyn nyo
nzi osa ota oto paa pag pal pam pap pau peo pes phi phn pon pra pro prs raj rap rar roa rom rup sad sah
sai sal sam sas sat scn sco sel sem sga sgn shn sid sio sit sla sma smi smj smn sms snk sog son srn srr
ssa suk sus sux swh syc syr tai tem ter tet tig tiv tkl tlh tli tmh tog tpi tsi tum tup tut tvl tyv udm
uga umb und vai vot wak wal war was wen wuu xal yao yap ypk yue zap zbl zen zgh znd zun zza
"""

_ENGLISH_NAME = dict(entry.strip().split(maxsplit=1) for entry in " ".join(_NAMES.split()).split(";"))
_KNOWN = frozenset(_ENGLISH_NAME) | frozenset(_THREE_LETTERS.split())

# RFC 5646, section 2.1: language, extended language, script, region, variants, extensions, private use.
_LANGTAG = re.compile(
    r"(?P<language>[a-z]{2,3})(?P<extlang>(?:-[a-z]{3}){0,3})"
    r"(?:-(?P<script>[a-z]{4}))?"
    r"(?:-(?P<region>[a-z]{2}|[0-9]{3}))?"
    r"(?P<variants>(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*)"
    r"(?P<extensions>(?:-[0-9a-wy-z](?:-[a-z0-9]{2,8})+)*)"
    r"(?P<private>-x(?:-[a-z0-9]{1,8})+)?",
    re.ASCII,
)
MAX_TAG_CHARACTERS = 64


def problem_with(tag: str) -> str | None:
    """What is wrong with a language tag, or None.

    Grandfathered tags ("i-klingon") and private ones ("x-mine") are refused: neither names a language of ISO 639.
    """
    match = _LANGTAG.fullmatch(tag.lower()) if tag.isascii() and len(tag) <= MAX_TAG_CHARACTERS else None
    if match is None:
        return "must be a BCP 47 language tag, for example en or pt-BR"
    variants = match["variants"].split("-")[1:]
    singletons = re.findall(r"-([a-z0-9])(?=-)", match["extensions"])
    if len(set(variants)) < len(variants) or len(set(singletons)) < len(singletons):
        return "must be a BCP 47 language tag; a variant or extension is repeated"
    if match["language"] not in _KNOWN:
        return "starts with a language that ISO 639 does not know"
    return None


def canonical(tag: str) -> str:
    """A valid tag in the case that RFC 5646 recommends: "zh-Hant-TW". Nothing else is changed."""
    match = _LANGTAG.fullmatch(tag.lower())
    if match is None:
        raise ValueError(f"not a language tag: {tag!r}")
    parts = [match["language"] + match["extlang"]]
    parts += [match["script"].title()] if match["script"] else []
    parts += [match["region"].upper()] if match["region"] else []
    return "-".join(parts) + match["variants"] + match["extensions"] + (match["private"] or "")


def english_name(tag: str) -> str | None:
    """The English name of a valid tag's language, where it has a two-letter code: "pt-BR" is Portuguese."""
    return _ENGLISH_NAME.get(tag.lower().split("-")[0])
