"""Synthetic catalogs of any size: shops' departments, kinds of goods, and makes. Seeded; every path is new."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from bidtrie.trie.catalog import Segment

_TOPS_TEXT = (
    "Automotive|Baby & Toddler|Books & Literature|Business Services|Clothing & Accessories|Computers & Software|"
    "Consumer Electronics|Education|Family & Parenting|Finance|Food & Drink|Garden & Outdoors|Gifts & Holidays|"
    "Health & Beauty|Hobbies & Crafts|Home & Furniture|Jewelry & Watches|Movies & Television|Music & Audio|"
    "Pet Supplies|Real Estate|Sports & Fitness|Toys & Games|Travel"
)
_TOPS = _TOPS_TEXT.split("|")
_KINDS_TEXT = (
    "Accessories|Adapters|Aprons|Backpacks|Bags|Bands|Baskets|Batteries|Bedding|Belts|Benches|Bikes|Binders|Blankets|"
    "Blenders|Boots|Bottles|Bowls|Boxes|Brushes|Cabinets|Cables|Cameras|Candles|Carpets|Carriers|Cases|Chairs|Chargers|"
    "Cleaners|Clocks|Coats|Collars|Controllers|Cookers|Coolers|Covers|Curtains|Cushions|Desks|Dolls|Doors|Drills|"
    "Drones|Drums|Earrings|Fans|Filters|Flags|Flashlights|Frames|Games|Gloves|Grills|Guides|Guitars|Hammers|Hats|"
    "Headphones|Heaters|Helmets|Hoses|Inks|Insurance|Jackets|Jars|Kettles|Keyboards|Kits|Knives|Labels|Lamps|Leashes|"
    "Lenses|Loans|Locks|Mattresses|Mats|Microphones|Mirrors|Mixers|Monitors|Mugs|Necklaces|Notebooks|Oils|Ovens|Paints|"
    "Pans|Papers|Pedals|Pens|Phones|Pillows|Planners|Planters|Plates|Printers|Projectors|Pumps|Puzzles|Racks|Rings|"
    "Robots|Ropes|Rugs|Saddles|Scales|Scooters|Screens|Seats|Seeds|Sensors|Sheets|Shelves|Shirts|Shoes|Skates|Skis|"
    "Soaps|Sofas|Software|Speakers|Stands|Stoves|Strollers|Swings|Tables|Tablets|Tapes|Tents|Tiles|Tires|Tools|Towels|"
    "Toys|Tripods|Trousers|Umbrellas|Vacuums|Vases|Vests|Wallets|Watches|Wheels|Windows|Wipes|Yarns"
)
_KINDS = _KINDS_TEXT.split("|")
_MODIFIERS_TEXT = (
    "Adjustable|Antique|Bamboo|Budget|Camping|Ceramic|Classic|Compact|Copper|Cordless|Cotton|Custom|Digital|Disposable|"
    "Eco-Friendly|Electric|Fireproof|Foldable|Gourmet|Handmade|Heavy-Duty|Hybrid|Indoor|Inflatable|Insulated|Kids'|"
    "Large|Leather|LED|Lightweight|Luxury|Magnetic|Marine|Men's|Mini|Modern|Natural|Organic|Outdoor|Oversized|Personal|"
    "Plastic|Portable|Premium|Professional|Rechargeable|Recycled|Refurbished|Retro|Rustic|Silicone|Smart|Solar|"
    "Stainless|Travel|Used|Vegan|Vintage|Waterproof|Wireless|Women's|Wooden"
)
_MODIFIERS = _MODIFIERS_TEXT.split("|")
_SYLLABLES_TEXT = (
    "al an ar be ber ca cor da del do el en fa fer ga gen ha hol in ka kel la lin lo ma mer mo na nor o pa pel ra ren "
    "ro sa sel ta tor u va ver wes zen"
)
_SYLLABLES = _SYLLABLES_TEXT.split()


def synthetic_segments(count: int, seed: int = 0) -> list[Segment]:
    """`count` segments (at least 16) of one to four tiers; the tiers above are segments too."""
    return list(islice(_segments(count, seed), count))


def _segments(count: int, seed: int) -> Iterator[Segment]:
    rng = np.random.default_rng(seed)
    tops = _TOPS[: max(2, min(len(_TOPS), count // 8))]
    width = max(2, int((count / len(tops)) ** (1 / 3)))
    makes = max(1, -(-count // (len(tops) * width**2)))
    made = 0

    def segment(*path: str) -> Segment:
        nonlocal made
        made += 1
        return Segment(f"seg-{made:07d}", path[-1], path)

    for top in tops:
        yield segment(top)
        for kind in rng.choice(len(_KINDS), min(width, len(_KINDS)), replace=False).tolist():
            yield segment(top, _KINDS[kind])
            for modifier in rng.choice(len(_MODIFIERS), min(width, len(_MODIFIERS)), replace=False).tolist():
                third = f"{_MODIFIERS[modifier]} {_KINDS[kind]}"
                yield segment(top, _KINDS[kind], third)
                for make in dict.fromkeys(_make(rng) for _ in range(makes)):
                    yield segment(top, _KINDS[kind], third, f"{make} {third}")


def _make(rng: np.random.Generator) -> str:
    """A maker's name that no dictionary has."""
    return "".join(_SYLLABLES[i] for i in rng.integers(len(_SYLLABLES), size=3)).capitalize()
