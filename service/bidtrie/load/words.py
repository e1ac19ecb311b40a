"""Titles and products made of plain words, as many distinct ones as anybody needs."""

from collections.abc import Iterator

_TEXT = """
recipe bread oven dinner garlic cheese wine coffee dessert salad pasta grill kitchen chef vegan breakfast
football tennis golf hockey cricket marathon cycling swimming boxing league goal coach stadium season trophy
sprint laptop phone software browser cloud battery camera server network robot startup gadget screen keyboard
tablet privacy car engine truck electric hybrid tire garage driver racing motorcycle sedan brakes highway fuel
parking charger travel beach island hotel flight airport passport cruise mountain hiking camping museum
luggage village harbor train budget mortgage savings pension stock bond loan tax insurance inflation bank
credit invoice salary retirement dividend doctor vaccine sleep diet vitamin surgery allergy migraine therapy
clinic nurse fitness yoga running diabetes stress garden tomato roses lawn compost seeds orchard pruning
greenhouse soil herbs balcony hedge tulips watering mulch movie actor trailer series album concert guitar
festival comedy drama novel poetry painting gallery theatre opera puppy kitten dog cat aquarium parrot hamster
horse leash veterinarian shelter breed grooming rabbit turtle stable school teacher exam college homework
science physics history algebra library student campus language degree essay reading sofa lamp curtain carpet
paint tiles bathroom bedroom furniture shelf plumbing roof insulation hammer drill renovation dress sneakers
jacket jewelry perfume makeup skincare haircut denim fashion handbag runway scarf watch boots linen baby
toddler stroller nursery pregnancy parenting playground birthday wedding anniversary family grandparents twins
adoption daycare toys weather storm climate recycling solar wind forest river ocean wildlife energy carbon
drought harvest farm glacier election senate mayor court treaty ballot strike census border parliament
referendum lawsuit diplomat protest city subway
"""
#: 256 words of many topics: a title's number is written in base 256.
WORDS = tuple(_TEXT.split())
_BASE_BITS = 8
_WORDS_A_TEXT = 6
_BITS = _BASE_BITS * _WORDS_A_TEXT
#: Texts before they repeat.
DISTINCT = 1 << _BITS
_MASK = DISTINCT - 1


def _scatter(number: int) -> int:
    """A one-to-one map of the numbers below DISTINCT onto themselves, under which neighbours look unrelated.

    Multiplying by an odd number modulo a power of two and folding the upper half into the lower can both be undone.
    """
    number = number * 0x9E3779B97F4B & _MASK
    number ^= number >> (_BITS // 2)
    number = number * 0xC2B2AE3D27D5 & _MASK
    return number ^ number >> (_BITS // 2)


def distinct_words(start: int) -> Iterator[list[str]]:
    """Lists of six words, no two alike; different starts below DISTINCT give other ones, but for the rare overlap."""
    while True:
        code = _scatter(start & _MASK)
        yield [WORDS[code >> shift & 0xFF] for shift in range(0, _BITS, _BASE_BITS)]
        start += 1
