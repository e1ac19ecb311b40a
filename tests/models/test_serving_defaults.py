"""What a model recommends for serving."""

from dataclasses import replace

import pytest
from bidtrie.errors import ModelError
from bidtrie.models.serving_defaults import ServingDefaults, serving_defaults
from reference.tiny_models import random_checkpoint


def test_recommendations() -> None:
    plain = random_checkpoint()
    assert serving_defaults(plain) == ServingDefaults()
    some = replace(plain, huggingface_config={"bidtrie_serving": {"prior_weight": 0}})
    assert serving_defaults(some) == ServingDefaults(prior_weight=0.0)
    both = {"prior_weight": 0.5, "retriever_weight": 3}
    all_of_them = replace(plain, huggingface_config={"bidtrie_serving": both})
    assert serving_defaults(all_of_them) == ServingDefaults(0.5, 3.0)
    tuned = serving_defaults(
        replace(plain, huggingface_config={"bidtrie_serving": {"catalogs": ["a", "1f"]}})
    )
    assert [tuned.fits(*each) for each in (("a", "2"), ("b", "1f"), ("b", "2"))] == [True, True, False]
    assert ServingDefaults().fits("b", "2")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"prior_weight": -1}, "prior_weight is -1, expected 0 to 100"),
        ({"retriever_weight": "much"}, "retriever_weight is 'much', expected a number"),
        ({"catalogs": "iab-content"}, "catalogs is 'iab-content', expected a list of strings"),
        ({"temperature": 1}, "the key temperature is unknown"),
        ([1], "bidtrie_serving is"),
    ],
)
def test_what_is_wrong(section: object, message: str) -> None:
    checkpoint = replace(random_checkpoint(), huggingface_config={"bidtrie_serving": section})
    with pytest.raises(ModelError, match=message):
        serving_defaults(checkpoint)
