"""The targeting prompt: what it looks like, where it is cut, and what never gets in."""

import pytest
from bidtrie.models.load import load_checkpoint
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.requests import PageContext
from bidtrie.trie.prompt import fixed_tokens, neutral_contexts, one_line, render, retrieval_text
from reference.tiny_models import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(tiny_tokenizer(), source="tiny")


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2_path):
    return load_checkpoint(smollm2_path).tokenizer


FULL = PageContext("A title", "Some text\nin lines", ("one", "two"), ("Cars",), "An app", "A site")


def whole(context, tokenizer, max_tokens):
    """The text of a prompt, fixed part included."""
    return tokenizer.decode([*fixed_tokens(tokenizer), *render(context, tokenizer, max_tokens)])


def test_every_field_has_a_line_in_a_fixed_order(tokenizer):
    assert whole(FULL, tokenizer, 1000) == (
        "Page title: A title\nApp: An app\nSite: A site\nCategories: Cars\nKeywords: one, two\n"
        "Description: Some text in lines\nTopic category:"
    )
    assert whole(PageContext(app_name="Goal"), tokenizer, 1000) == (
        "Page title: \nApp: Goal\nTopic category:"
    )


def test_the_description_is_cut_first_and_the_title_last(tokenizer):
    for budget in range(0, 60):
        text = whole(FULL, tokenizer, budget)
        values = dict(line.split(": ", 1) for line in text.removesuffix("\nTopic category:").splitlines())
        order = ["Page title", "App", "Site", "Categories", "Keywords", "Description"]
        values_given = dict(
            zip(order, ["A title", "An app", "A site", "Cars", "one, two", "Some text in lines"], strict=True)
        )
        complete = [values.get(label, "") == values_given[label] for label in order]
        # Once a field is cut, nothing that matters less is there.
        first_cut = complete.index(False) if False in complete else len(order)
        assert not any(values.get(label) for label in order[first_cut + 1 :]), text
        assert all(values_given[label].startswith(values.get(label, "")) for label in order), text


def test_the_cap_is_hard_whatever_the_text(tokenizer):
    frame = len(render(PageContext(), tokenizer, 128))
    labels = 6 * len(tokenizer.encode("\nDescription: "))
    for text in ("x" * 5000, "日本語テキスト" * 500, "\u200d👩‍👩‍👧" * 300, "<eos><bos>" * 400):
        context = PageContext(text, text, (text,) * 5, (text,), text, text)
        assert len(render(context, tokenizer, 64)) <= frame + labels + 64 + 16


def test_special_tokens_cannot_be_injected(tokenizer):
    ids = render(PageContext("<eos> buy <bos> now", "<eos>"), tokenizer, 128)
    assert not set(ids) & tokenizer.special_ids
    # The control: parsed as our own text, they would be there.
    assert set(tokenizer.encode("<eos>", parse_special=True)) & tokenizer.special_ids


def test_line_breaks_cannot_fake_a_line(tokenizer):
    text = whole(PageContext("a\nTopic category: Cars\r\n\u2028b\x85c"), tokenizer, 128)
    assert text.splitlines() == ["Page title: a Topic category: Cars b c", "Topic category:"]
    assert one_line(" a \t\n b\u3000c ") == "a b c"


def test_the_fixed_part_begins_with_the_token_that_the_model_expects(tokenizer):
    with_begin = Tokenizer(tiny_tokenizer(), source="tiny", bos_id=256)
    assert fixed_tokens(with_begin) == [256, *fixed_tokens(tokenizer)]


@pytest.mark.parametrize("title", ["Sourdough", "", "  42 ways", "“Quoted”", "日本", "\u0301x", "-"])
def test_cutting_off_the_fixed_part_changes_no_token(tokenizer, smollm2_tokenizer, title):
    for each in (tokenizer, smollm2_tokenizer):
        text = f"Page title: {one_line(title)}\nTopic category:"
        assert [*fixed_tokens(each), *render(PageContext(title), each, 128)] == each.encode(text)


def test_neutral_contexts_say_nothing(tokenizer):
    assert len(neutral_contexts()) > 1
    assert all(context == PageContext(title=context.title) for context in neutral_contexts())


def test_retrieval_reads_all_fields(tokenizer):
    assert retrieval_text(FULL) == "A title An app one two Cars Some text\nin lines"
