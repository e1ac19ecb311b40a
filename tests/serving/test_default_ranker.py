"""What RANKER_AUTO means, catalog by catalog."""

import asyncio
import json
import shutil

import pytest
from bidtrie.home import models_dir
from bidtrie.requests import PageContext, Ranker, Source, TargetQuery
from bidtrie.serving.runtime import Runtime

PAGE = TargetQuery(PageContext(title="Bread for beginners"))


@pytest.fixture
def tuned(home):
    """The name of a model that says that it was tuned for the catalog "topics"."""
    folder = models_dir() / "tiny-tuned"
    shutil.copytree(models_dir() / "tiny-a", folder)
    config = json.loads((folder / "config.json").read_text())
    config["bidtrie_serving"] = {"prior_weight": 0, "retriever_weight": 1.5, "catalogs": ["topics"]}
    (folder / "config.json").write_text(json.dumps(config))
    yield folder.name
    shutil.rmtree(folder)


async def sources(settings) -> list[Source]:
    runtime = await asyncio.to_thread(Runtime, settings)
    try:
        asked = [PAGE, TargetQuery(PAGE.context, catalog="fewer")]
        asked.append(TargetQuery(PAGE.context, catalog="fewer", ranker=Ranker.LLM))
        return [(await runtime.target(query)).source for query in asked]
    finally:
        await runtime.close()


async def test_a_tuned_model_stands_back_on_catalogs_that_it_was_not_tuned_for(settings, tuned):
    found = await sources(settings.model_copy(update={"model": tuned}))
    assert found == [Source.BOTH, Source.RETRIEVER, Source.LLM]


async def test_a_setting_goes_before_what_the_model_says(settings, tuned):
    found = await sources(settings.model_copy(update={"model": tuned, "ranker": "both"}))
    assert found == [Source.BOTH, Source.BOTH, Source.LLM]


async def test_a_model_that_says_nothing_takes_part_everywhere(settings):
    assert await sources(settings) == [Source.BOTH, Source.BOTH, Source.LLM]
