"""Settings: where they come from, what goes first, and errors that name the key and its origin."""

import inspect
from pathlib import Path

import pytest
from bidtrie.cli.serve import serve
from bidtrie.errors import InvalidInput
from bidtrie.settings import Settings, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bidtrie.toml"
    path.write_text(
        'grpc_port = 1111\nhttp_port = 2222\nbeam_width = 3\ncatalogs = ["a", "b"]\n', encoding="utf-8"
    )
    return path


def test_flags_go_before_the_environment_and_that_before_the_file(file):
    environment = {"BIDTRIE_HTTP_PORT": "3333", "BIDTRIE_BEAM_WIDTH": "4", "PATH": "/bin"}
    settings = load_settings(file, environment, {"beam_width": 5, "model": None})
    assert (settings.grpc_port, settings.http_port, settings.beam_width) == (1111, 3333, 5)
    assert settings.catalogs == ("a", "b")
    assert settings.model == Settings().model


def test_lists_in_the_environment_are_separated_by_commas():
    assert load_settings(None, {"BIDTRIE_CATALOGS": "iab-content, mine,"}).catalogs == ("iab-content", "mine")


def test_the_cache_folder_is_no_setting_but_misspelt_names_are_errors():
    assert load_settings(None, {"BIDTRIE_HOME": "/somewhere"}) == Settings()
    with pytest.raises(InvalidInput) as wrong:
        load_settings(None, {"BIDTRIE_BEAM_WIDHT": "4"})
    assert wrong.value.violations[0].field == "BIDTRIE_BEAM_WIDHT"
    assert "did you mean beam_width" in wrong.value.violations[0].description


def test_every_wrong_value_is_named_by_where_it_came_from(file):
    with file.open("a", encoding="utf-8") as out:
        out.write("threads = 0\n")
    with pytest.raises(InvalidInput) as wrong:
        load_settings(file, {"BIDTRIE_KV_SLOTS": "many"}, {"log_level": "loud"})
    fields = [violation.field for violation in wrong.value.violations]
    assert fields == [f"{file}: threads", "BIDTRIE_KV_SLOTS", "--log-level"]


@pytest.mark.parametrize("text", ["grpc_port = ", "[server]\ngrpc_port = 1\n", 'grpc_port = "x"\n', "\xff"])
def test_a_broken_file_is_a_clear_error(tmp_path, text):
    path = tmp_path / "broken.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"broken\.toml"):
        load_settings(path, {})


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(InvalidInput, match=r"none\.toml: cannot be read"):
        load_settings(tmp_path / "none.toml", {})


def test_every_setting_is_a_flag_of_serve():
    assert set(inspect.signature(serve).parameters) == {"config", *Settings.model_fields}
