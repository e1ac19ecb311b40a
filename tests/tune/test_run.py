"""Whole runs on a tiny model: what is learned, what is written, what a kill costs."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bidtrie.cli.app import app
from bidtrie.errors import BidtrieError, InvalidInput, ModelError
from bidtrie.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TUNE_RECORD
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.load import load_checkpoint
from bidtrie.models.serving_defaults import serving_defaults
from bidtrie.retrieval.word_vectors import WordVectors, package_vectors
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.store import save_catalog
from bidtrie.tune.pairs import Pairs
from bidtrie.tune.recipe import Method, Recipe
from bidtrie.tune.run import tune
from bidtrie.tune.targeting_examples import Shares
from bidtrie.tune.torch_model import torch_model
from bidtrie.tune.trainer import State, Trainer
from typer.testing import CliRunner

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]

RECIPE = Recipe(
    rank=4, epochs=4, learning_rate=3e-2, pack_tokens=600, evaluate_every=3, patience=50, creative_weight=0.2
)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def tuned(
    tiny_folder: Path, catalog: Catalog, pairs: Pairs, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    result = tune(tiny_folder, pairs, Pairs(), catalog, replace(RECIPE, seed=1), out)
    assert result.steps == result.total
    # With nothing to judge by, the last weights are kept.
    assert result.best_step == result.steps
    return out


def test_what_is_learned(tiny_folder: Path, catalog: Catalog, pairs: Pairs, tmp_path: Path) -> None:
    # Judged by nearly the pairs it learns from: they can be learned, and the judge must see it.
    judge = Pairs(tuple(replace(page, context=replace(page.context, site_name="s")) for page in pairs.pages))
    recipe = replace(RECIPE, epochs=12, pack_tokens=200, label_smoothing=0.0, learning_rate=1e-2)
    result = tune(tiny_folder, Pairs(pairs.pages), judge, catalog, recipe, tmp_path / "out")
    assert result.after.targeting < 0.7 * result.before.targeting
    assert np.isnan(result.after.creative)
    # The control: a run that hardly moves does not pass for one that learned.
    still = replace(recipe, epochs=1, learning_rate=1e-7)
    result = tune(tiny_folder, Pairs(pairs.pages), judge, catalog, still, tmp_path / "still")
    assert result.after.targeting > 0.9 * result.before.targeting


def test_split(pairs: Pairs) -> None:
    training, held_out = pairs.split(0.3)
    assert len(training) + len(held_out) == len(pairs)
    assert len(held_out.pages) == int(0.3 * len(pairs.pages))
    assert not {page.context for page in training.pages} & {page.context for page in held_out.pages}
    # There is something to judge by, however little there is.
    _, few = pairs.split(0.01)
    assert (len(few.pages), len(few.products)) == (1, 1)
    assert Pairs(pairs.pages[:1]).split(0.05) == (Pairs(pairs.pages[:1]), Pairs())


def test_the_merged_adapter_is_what_was_trained(tuned: Path, tiny: Checkpoint) -> None:
    """Against peft's own merge of the written files."""
    from peft import PeftModel

    ours = load_checkpoint(tuned)
    theirs = PeftModel.from_pretrained(torch_model(tiny), str(tuned)).merge_and_unload().state_dict()
    changed = 0
    for name, tensor in ours.tensors.items():
        np.testing.assert_allclose(tensor.dequantize(), theirs[name].numpy(), atol=2e-6)
        changed += not np.array_equal(tensor.dequantize(), tiny.tensors[name].dequantize())
    assert changed == 7 * tiny.config.num_layers
    record = json.loads((tuned / TUNE_RECORD).read_text(), parse_constant=pytest.fail)
    assert record["base_content_hash"] == tiny.content_hash
    assert record["recipe"]["rank"] == 4
    # What the service will take it for.
    assert ours.huggingface_config is not None
    assert ours.huggingface_config["bidtrie_serving"] == record["bidtrie_serving"]
    assert serving_defaults(ours).fits("tiny", "")
    assert not serving_defaults(ours).fits("another", "0")


def test_the_retriever_of_each_fold_takes_part(
    tiny_folder: Path, catalog: Catalog, pairs: Pairs, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, epochs=2, shares=Shares(beside_retriever=0.5))
    table, turned = package_vectors(), WordVectors()
    turned._scales = -turned._scales[np.random.default_rng(0).permutation(len(turned._scales))]

    def made(name: str, *tables: WordVectors) -> bytes:
        tune(tiny_folder, pairs, Pairs(), catalog, recipe, tmp_path / name, word_vectors=tables)
        record = json.loads((tmp_path / name / TUNE_RECORD).read_text())
        assert record["bidtrie_serving"]["retriever_weight"] == recipe.retriever_weight
        return files(tmp_path / name)[ADAPTER_WEIGHTS]

    assert made("package") == made("same", table, table)
    # The control: vectors that say the contrary.
    assert made("package-again") != made("other", table, turned)


def test_a_stopped_run_goes_on_and_ends_the_same(
    tuned: Path, tiny_folder: Path, catalog: Catalog, pairs: Pairs, tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    def stop(state: State, total: int) -> None:
        if state.step == 5:
            raise Stopped

    monkeypatched = Trainer.run
    recipe, out = replace(RECIPE, seed=1), tmp_path / "out"
    Trainer.run = lambda self, store_every=2: monkeypatched(self, store_every)  # type: ignore[method-assign]
    try:
        with pytest.raises(Stopped):
            tune(tiny_folder, pairs, Pairs(), catalog, recipe, out, stop)
        assert not out.exists()
        steps: list[int] = []
        tune(tiny_folder, pairs, Pairs(), catalog, recipe, out, lambda state, total: steps.append(state.step))
    finally:
        Trainer.run = monkeypatched  # type: ignore[method-assign]
    # It went on after the last stored step, not from the beginning.
    assert steps[0] == 5
    assert files(out) == files(tuned)
    assert not (tmp_path / ".out.tuning").exists()
    # The control: another seed ends elsewhere.
    tune(tiny_folder, pairs, Pairs(), catalog, replace(RECIPE, seed=2), tmp_path / "other")
    assert files(tmp_path / "other")[ADAPTER_WEIGHTS] != files(tuned)[ADAPTER_WEIGHTS]


def test_a_state_of_another_run_is_not_taken_up(
    tiny_folder: Path, catalog: Catalog, pairs: Pairs, tmp_path: Path
) -> None:
    def stop(state: State, total: int) -> None:
        raise KeyboardInterrupt

    run = Trainer.run
    Trainer.run = lambda self, store_every=1: run(self, store_every)  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            tune(tiny_folder, pairs, Pairs(), catalog, RECIPE, tmp_path / "out", stop)
    finally:
        Trainer.run = run  # type: ignore[method-assign]
    with pytest.raises(BidtrieError, match="other pairs, settings or another model"):
        tune(tiny_folder, pairs, Pairs(), catalog, replace(RECIPE, seed=9), tmp_path / "out")
    (tmp_path / ".out.tuning" / "state.pt").write_bytes(b"cut off")
    with pytest.raises(BidtrieError, match="is damaged"):
        tune(tiny_folder, pairs, Pairs(), catalog, RECIPE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_weights(
    tiny_folder: Path, tiny: Checkpoint, catalog: Catalog, pairs: Pairs, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, method=Method.FULL, epochs=1, learning_rate=1e-3)
    result = tune(tiny_folder, pairs, Pairs(), catalog, recipe, tmp_path / "full")
    assert result.steps > 0
    artefact = load_checkpoint(tmp_path / "full")
    assert artefact.compression is None
    assert artefact.tokenizer.content_hash == tiny.tokenizer.content_hash
    for name, tensor in artefact.tensors.items():
        assert tensor.shape == tiny.tensors[name].shape
        assert not np.array_equal(tensor.dequantize(), tiny.tensors[name].dequantize())


def test_killed_from_outside(tiny_folder: Path, catalog: Catalog, tmp_path: Path) -> None:
    """The command, killed with SIGKILL in the middle: nothing is written, and the same command ends the work."""
    home = tmp_path / "home"
    environment = {**os.environ, "BIDTRIE_HOME": str(home), "OMP_NUM_THREADS": "1"}
    os.environ["BIDTRIE_HOME"] = str(home)
    try:
        save_catalog(catalog, "test")
    finally:
        del os.environ["BIDTRIE_HOME"]
    pages = tmp_path / "pages.tsv"
    pages.write_text("".join(f"Food > Tea\tcup number {i}\n" for i in range(200)), encoding="utf-8")
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "bidtrie", "tune", str(tiny_folder), "--pairs", str(pages), "--json"),
        *("--catalog", "tiny", "--out", str(out), "--pack-tokens", "64", "--epochs", "4"),
    ]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        state = tmp_path / ".out.tuning" / "state.pt"
        for _ in range(1200):
            if state.exists() or process.poll() is not None:
                break
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        assert state.exists()
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["pages"] == 190
    assert load_checkpoint(out).name == "out"
    assert not state.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rank", "0"], "--rank: 0, expected 1 to 512"),
        (["--method", "dora"], "--method: 'dora', expected lora or full"),
        (["--learning-rate", "7"], "--learning-rate: 7, expected"),
        (["--held-out", "PAIRS"], "pages are in --pairs too"),
        (["--pairs", "notes.txt"], r"notes.txt: expected a name that ends in .tsv or .csv"),
        (
            ["--pairs", "LONG"],
            r"long.csv: output of 'Firm': has 31 characters, expected at most 30 for headline",
        ),
        (
            ["--retriever-table", "PAIRS"],
            r"--retriever-table: .*pages.tsv.*; expected tables that `python -m",
        ),
    ],
)
def test_wrong_arguments(
    tiny_folder: Path,
    catalog: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path / "home"))
    save_catalog(catalog, "test")
    pages = tmp_path / "pages.tsv"
    pages.write_text("Food\ta table\nTravel\ta train\n", encoding="utf-8")
    long = tmp_path / "long.csv"
    long.write_text(
        f"company,industry,type,desc,output\nFirm,tea,headline,Tea.,{'x' * 31}\n", encoding="utf-8"
    )
    files = {"PAIRS": str(pages), "LONG": str(long)}
    given = [files.get(each, each) for each in arguments]
    command = ["tune", str(tiny_folder), "--pairs", str(pages), "--catalog", "tiny", *given]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, InvalidInput)
    with pytest.raises(InvalidInput, match=message):
        raise result.exception
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))) in (
        [],
        [".out.tuning"],
    )


def test_out_that_is_there_is_told_before_the_work(
    tiny_folder: Path, catalog: Catalog, pairs: Pairs, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is there already"):
        tune(tiny_folder, pairs, Pairs(), catalog, RECIPE, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 5}, r"A is \[4, 96\] and B \[64, 4\], expected \[5, 96\]"),
        ({"use_dora": True}, "use_dora is True, expected False"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3', expected 'LORA'"),
        ({"lora_alpha": "x"}, "lora_alpha is 'x', expected a number"),
        ({"base_model_name_or_path": "/nowhere"}, "no such file, folder or fetched model"),
    ],
)
def test_damaged_adapters(
    tuned: Path, tiny_folder: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in files(tuned).items():
        (copy / name).write_bytes(content)
    config = json.loads((copy / ADAPTER_CONFIG).read_text())
    (copy / ADAPTER_CONFIG).write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=message):
        load_checkpoint(copy)


def test_an_adapter_of_another_base(tuned: Path, tiny_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in files(tuned).items():
        (copy / name).write_bytes(content)
    record = json.loads((copy / TUNE_RECORD).read_text())
    (copy / TUNE_RECORD).write_text(json.dumps({**record, "base_content_hash": "0" * 16}))
    with pytest.raises(ModelError, match="was tuned from a model of the content hash 0000"):
        load_checkpoint(copy)
    (copy / ADAPTER_WEIGHTS).write_bytes(b"\0" * 100)
    with pytest.raises(ModelError):
        load_checkpoint(copy)
