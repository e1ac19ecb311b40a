"""Making the table: a tiny sentence model, its pieces, and that training learns what contexts say."""

import json
from pathlib import Path

import numpy as np
import pytest
from bidtrie.evaluation.pages import Page
from bidtrie.requests import PageContext
from bidtrie.retrieval.word_vectors import UNKNOWN, unit
from bidtrie.trie.catalog import Catalog, Segment

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from bidtrie.retrieval.distill import SentenceModel, TableRecipe, distil, train  # noqa: E402

WORDS = ["alpha", "beta", "gamma", "delta", "cats", "dogs", "##s", "red", "blue", "green"]
RECIPE = TableRecipe(dimensions=8, epochs=40, batch=4, rate=0.02, word_dropout=0.1, pull=0.01)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SentenceModel:
    """A random BERT of two layers with a vocabulary of its own."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("model")
    vocabulary = ["[PAD]", "[unused0]", UNKNOWN, "[CLS]", "[SEP]", "[", "\u4e2d", *WORDS]
    tokenizer = Tokenizer(WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 16
    return SentenceModel(Path(folder))


def test_batches_do_not_change_a_texts_vector(model: SentenceModel) -> None:
    texts = ["alpha", "beta gamma delta red blue", "cats"]
    together = model.texts(texts)
    alone = np.concatenate([model.texts([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together - together[::-1]).max() > 0.01


def test_ascii_pieces_are_kept_the_unknown_one_first(model: SentenceModel) -> None:
    pieces, vectors = distil(model, RECIPE)
    assert pieces == [UNKNOWN, "[", *WORDS]
    assert vectors.shape == (len(pieces), 8)
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1:], axis=1).mean() == pytest.approx(1, rel=1e-5)


def test_training_learns_the_contexts_and_leaves_the_rest_near(model: SentenceModel) -> None:
    catalog = Catalog("animals", [Segment(name, name, (name,)) for name in ("cats", "dogs")])
    said = {"alpha red": "cats", "beta red": "dogs", "alpha blue": "cats", "beta blue": "dogs"}
    pages = [Page(((right,),), PageContext(title=text)) for text, right in said.items()]
    pieces, distilled = distil(model, RECIPE)

    def right(table: np.ndarray) -> list[float]:
        at = {piece: i for i, piece in enumerate(pieces)}
        found = []
        for text, name in said.items():
            context = unit(sum(table[at[word]] for word in text.split()))
            other = "dogs" if name == "cats" else "cats"
            found.append(float(context @ unit(table[at[name]]) - context @ unit(table[at[other]])))
        return found

    recipe = TableRecipe(**{**{f: getattr(RECIPE, f) for f in RECIPE.__slots__}, "teacher_weight": 0.0})
    trained = train(pieces, distilled, pages, catalog, model, recipe)
    assert min(right(trained)) > 0.2
    assert min(right(distilled)) < 0.1
    untouched = [pieces.index(piece) for piece in ("gamma", "delta", "green", "##s", UNKNOWN)]
    np.testing.assert_allclose(trained[untouched], distilled[untouched], atol=1e-6)
    assert (train(pieces, distilled, pages, catalog, model, recipe) == trained).all()
