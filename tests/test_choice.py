"""Which VLM judges: by name, by folder, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from editor import fetch as fetching
from editor import profiles
from editor.doctor import main as doctor
from editor.doctor import memory_table
from editor.hub import Hub
from editor.memory import JUDGES, choose, judge_in, need
from editor.profiles import ASSETS, PROFILES, chosen, own_weights
from editor.repos import VLMS, Repo
from editor.types import EditError
from tests.test_doctor import everything_in, machine
from tests.tiny_vlm import tiny_qwen3, tiny_qwen25


@pytest.fixture(scope="module", params=[tiny_qwen25, tiny_qwen3])
def folder(request, tmp_path_factory) -> Path:
    """A VLM of the user's own, one of each family."""
    path = tmp_path_factory.mktemp("my") / request.param.__name__
    for part in request.param():
        part.save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("Qwen/Qwen3-VL-4B-Instruct", "Qwen/Qwen3-VL-4B-Instruct"),
        ("Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("qwen3-vl-2b", "Qwen/Qwen3-VL-2B-Instruct"),
    ],
)
def test_a_vlm_is_known_by_its_name_in_short_too(name, repo):
    profile = chosen("flux", name)
    assert profile.vlm == VLMS[repo]
    assert profile.name == f"flux+{VLMS[repo].name}"
    assert profile.notices[-1] == f"The VLM is {VLMS[repo].name}: {VLMS[repo].licence}"


def test_the_name_of_such_a_choice_chooses_it_again_and_the_profiles_own_vlm_adds_nothing():
    profile = chosen("sana", "qwen3-vl-8b")
    assert chosen(profile.name) == profile
    assert chosen("flux", "Qwen2.5-VL-3B") == chosen("flux")
    assert chosen("flux").name == "flux"


def test_every_vlm_and_repository_has_a_licence_and_a_size():
    repos = [repo for profile in PROFILES.values() for repo in profile.repos] + list(VLMS.values())
    assert all(repo.licence.endswith(".") and repo.gigabytes > 0 for repo in repos)


def test_a_folder_of_ones_own_is_taken_and_measured(folder):
    profile = chosen("flux", str(folder))
    assert (profile.vlm, profile.name) == (folder.resolve(), f"flux+{folder.name}")
    assert "a folder of your own" in profile.notices[-1]
    assert all(isinstance(repo, Repo) for repo in profile.repos)
    model, _ = (tiny_qwen25 if "25" in folder.name else tiny_qwen3)()
    judge = judge_in(folder)
    seen = sum(p.numel() for p in model.model.visual.parameters()) / 1e9
    assert judge.vision.parameters == pytest.approx(seen)
    assert judge.text.parameters == pytest.approx(sum(p.numel() for p in model.parameters()) / 1e9 - seen)
    assert 0 < judge.text.kept < judge.text.parameters
    assert (judge.text.width, judge.text.blocks) == (32, len(model.model.language_model.layers))
    assert (judge.vision.width, judge.vision.blocks) == (32, len(model.model.visual.blocks))
    assert judge.patch == (14 if "25" in folder.name else 16)
    assert need(profile, choose(profile, 80))["VLM"] < need(PROFILES["flux"], choose(PROFILES["flux"], 80))["VLM"]
    assert list(memory_table(profile))[-1]["parts_gb"]


def test_the_flat_config_of_the_published_folders_is_read(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    for file in folder.glob("*.safetensors"):
        (tmp_path / file.name).symlink_to(file)
    text = config.pop("text_config")
    (tmp_path / "config.json").write_text(json.dumps(text | config))
    assert judge_in(tmp_path) == judge_in(folder)


def test_what_is_no_vlm_of_these_families_is_one_sentence(tmp_path):
    for name in ("gpt", "Qwen/Qwen2-VL-7B-Instruct"):
        with pytest.raises(EditError, match=r"There is no VLM .*Qwen/Qwen3-VL-8B-Instruct\.$"):
            chosen("flux", name)
    with pytest.raises(EditError, match="holds no VLM"):
        chosen("flux", str(tmp_path))
    broken = {"{": "holds no VLM", "[]": "holds no VLM", '{"model_type": "llava"}': "holds a llava model"}
    for config, sentence in broken.items():
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(EditError, match=sentence):
            chosen("flux", str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(EditError, match="missing files or holds damaged ones"):
        need(chosen("flux", str(tmp_path)), choose(PROFILES["flux"], 80))
    with pytest.raises(EditError, match="its own VLM"):
        chosen("studio", "qwen3-vl-4b")


def test_the_doctor_looks_at_the_chosen_vlm_and_lists_all(folder, tmp_path, capsys):
    where = machine(tmp_path, hub=everything_in(tmp_path))
    assert doctor("flux", True, where, "qwen3-vl-8b") == 0
    told = json.loads(capsys.readouterr().out)
    assert "Qwen/Qwen3-VL-8B-Instruct" in [finding["what"] for finding in told["findings"]]
    assert [row["name"] for row in told["vlms"]] == [repo.name for repo in VLMS.values()]
    assert len(told["vlms"]) == len(JUDGES)
    assert doctor("flux", False, where, str(folder)) == 0
    lines = capsys.readouterr().out
    assert "--vlm Qwen2.5-VL-3B-Instruct (7.5 GB): Qwen Research License: not for commercial use." in lines
    assert "licence: black-forest-labs/FLUX.1-dev: FLUX.1-dev Non-Commercial License" in lines


def test_fetching_takes_the_vlm_by_name_and_leaves_a_folder_where_it_is(folder, tmp_path, monkeypatch, capsys):
    fetched = []

    class Recorder(Hub):
        def gigabytes(self, repo):
            return repo.gigabytes

        def fetch(self, repo):
            fetched.append(repo.id)
            return tmp_path

    monkeypatch.setattr(fetching, "Hub", Recorder)
    assert fetching.main(["flux", "--vlm", "qwen3-vl-2b"]) == 0
    assert fetched[-1] == "Qwen/Qwen3-VL-2B-Instruct"
    out = capsys.readouterr().out
    assert "4.3 GB to come (https://huggingface.co/Qwen/Qwen3-VL-2B-Instruct). Apache License 2.0" in out
    fetched.clear()
    assert fetching.main(["flux", "--vlm", str(folder)]) == 0
    assert len(fetched) == 3
    assert fetching.main(["flux", "--vlm", "gpt"]) == 2
    assert "There is no VLM" in capsys.readouterr().err


def test_weights_that_come_along_are_told_apart_and_those_of_the_hub_have_no_name_here(monkeypatch, tmp_path):
    shutil.copytree(ASSETS / "studio", tmp_path / "studio")
    committed = own_weights("studio")
    monkeypatch.setattr(profiles, "ASSETS", tmp_path)
    assert own_weights("studio") == committed
    judge = tmp_path / "studio" / "vlm" / "model.safetensors"
    judge.write_bytes(judge.read_bytes()[::-1])
    assert own_weights("studio") != committed
    assert own_weights("flux") is own_weights("nobody's") is None
