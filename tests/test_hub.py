"""What is said of the Hub's troubles, with the Hub played by a function."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from editor.hub import Hub, missing
from editor.profiles import PROFILES
from editor.repos import FLUX_DEV, TAEF1
from editor.types import EditError

RESPONSE = SimpleNamespace(headers={}, request=None)


def hub(error: Exception | None = None, token: str | None = "hf_x", **parts) -> Hub:
    def fail(*_, **__):
        raise error

    return Hub(**{"snapshot": fail, "authorise": fail, "token": lambda: token, **parts})


@pytest.mark.parametrize(
    ("error", "token", "sentence"),
    [
        (GatedRepoError("401", response=RESPONSE), None, "hf auth login, then accept its licence at https://"),
        (
            GatedRepoError("403", response=RESPONSE),
            "hf_x",
            "not accepted yet: accept it at https://huggingface.co/black",
        ),
        (
            GatedRepoError("enable access to public gated repos in your fine-grained token", response=RESPONSE),
            "hf_x",
            "may not read gated repositories",
        ),
        (RepositoryNotFoundError("401 Invalid token", response=RESPONSE), "hf_bad", "token may be wrong or expired"),
        (HfHubHTTPError("503", response=RESPONSE), "hf_x", "try again later"),
        (OfflineModeIsEnabled("offline"), "hf_x", "go online"),
        (LocalEntryNotFoundError("no network"), "hf_x", "go online"),
        (ConnectionError("down"), "hf_x", "go online"),
        (OSError(errno.ENOSPC, "no space"), "hf_x", "disk is full"),
    ],
)
def test_every_trouble_has_its_sentence(error, token, sentence):
    for call in (Hub.fetch, Hub.gigabytes, Hub.check_access):
        with pytest.raises(EditError, match=sentence) as raised:
            call(hub(error, token), FLUX_DEV)
        assert FLUX_DEV.id in str(raised.value)
        assert str(raised.value).endswith(".")


def test_what_is_not_there_comes_with_the_command_that_fetches_it():
    with pytest.raises(EditError, match=r"python -m editor\.fetch"):
        hub(LocalEntryNotFoundError("absent")).folder(TAEF1)


def test_a_half_download_names_the_missing_file(tmp_path):
    for name in ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae"):
        (tmp_path / name).mkdir()
    (tmp_path / "model_index.json").touch()
    shards = {"a": "part-1.safetensors", "b": "part-2.safetensors"}
    index = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "transformer" / "part-1.safetensors").touch()
    with pytest.raises(EditError, match=r"half-way \(transformer/part-2\.safetensors is missing\)"):
        hub(snapshot=lambda *_, **__: str(tmp_path)).folder(FLUX_DEV)
    (tmp_path / "transformer" / "part-2.safetensors").touch()
    assert hub(snapshot=lambda *_, **__: str(tmp_path)).folder(FLUX_DEV) == tmp_path


def test_a_missing_folder_and_a_missing_file_are_found(tmp_path):
    assert missing(tmp_path, TAEF1) == list(TAEF1.files)
    assert "transformer" in missing(tmp_path, FLUX_DEV)


def test_the_size_is_what_is_still_to_come():
    files = [
        SimpleNamespace(file_size=2_000_000_000, will_download=True),
        SimpleNamespace(file_size=5_000_000_000, will_download=False),
    ]
    assert hub(snapshot=lambda *_, dry_run, **__: files).gigabytes(FLUX_DEV) == 2.0


def test_looking_never_downloads(tmp_path):
    asked = []

    def snapshot(*_, **options):
        asked.append(options)
        (tmp_path / "config.json").touch()
        (tmp_path / "diffusion_pytorch_model.safetensors").touch()
        return str(tmp_path)

    Hub(snapshot=snapshot).folder(TAEF1)
    assert asked == [{"allow_patterns": list(TAEF1.files), "local_files_only": True}]


def test_only_the_studio_comes_with_the_repository():
    assert [name for name, profile in PROFILES.items() if not profile.repos] == ["studio"]
