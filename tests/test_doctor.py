"""The doctor's report on machines played by functions: healthy, poor, offline."""

from __future__ import annotations

import json
from subprocess import TimeoutExpired
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

from editor import fetch as fetching
from editor.doctor import CARDS, Gpu, Machine, driver, installed, main, meminfo, memory_table, ram, swap
from editor.fetch import fetch
from editor.hub import Hub, fetch_command
from editor.profiles import PROFILES, chosen
from editor.repos import FLUX_PIPELINE
from editor.types import EditError
from tests.published import NO_WEIGHTS

RESPONSE = SimpleNamespace(headers={}, request=None, status_code=403)


def everything_in(folder):
    """A hub whose repositories are all complete on this machine."""

    def snapshot(repo, allow_patterns, local_files_only=False):
        place = folder / repo.replace("/", "--")
        for pattern in allow_patterns:
            if pattern.endswith("/*"):
                (place / pattern[:-2]).mkdir(parents=True, exist_ok=True)
                for name in ("config.json", "scheduler_config.json", "tokenizer.json"):
                    (place / pattern[:-2] / name).touch()
                (place / pattern[:-2] / "model.safetensors").write_bytes(NO_WEIGHTS)
            elif "*" not in pattern or pattern == "*.safetensors":
                file = place / pattern.replace("*", "model")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(NO_WEIGHTS if file.suffix == ".safetensors" else b"")
        return str(place)

    return Hub(snapshot=snapshot, authorise=lambda repo: None, token=lambda: "hf_x")


def nothing(*_, **__):
    raise LocalEntryNotFoundError("no network")


def machine(tmp_path, **parts) -> Machine:
    healthy = {
        "gpus": lambda: [Gpu("a GPU", 79.0, 80.0)],
        "driver": lambda: "580.1",
        "installed": installed,
        "disk_free": lambda folder: 500.0,
        "ram": lambda: 64.0,
        "swap": lambda: 0.0,
        "hub": everything_in(tmp_path),
        "cache": tmp_path,
        "models": tmp_path,
    }
    return Machine(**{**healthy, **parts})


def report(capsys, profile, where) -> tuple[int, dict]:
    status = main(profile, True, where)
    return status, json.loads(capsys.readouterr().out)


def broken(found: dict) -> dict[str, str]:
    return {finding["what"]: finding["text"] for finding in found["findings"] if not finding["ok"]}


@pytest.mark.parametrize("name", [name for name, profile in PROFILES.items() if profile.repos])
def test_a_healthy_machine_is_ok(name, tmp_path, capsys):
    status, found = report(capsys, name, machine(tmp_path))
    assert (status, found["ok"], broken(found)) == (0, True, {})
    assert [row["card_gb"] for row in found["memory"]] == list(CARDS)


@pytest.mark.parametrize(
    ("part", "what", "advice"),
    [
        ({"gpus": list}, "GPU", "torch finds none"),
        ({"gpus": lambda: [Gpu("small", 7.0, 8.0)]}, "memory", "needs at least"),
        ({"ram": lambda: 16.0, "swap": lambda: 8.0}, "RAM", "add 11 GB of either, or use the profile studio or sana"),
        ({"installed": lambda name: None if name == "peft" else installed(name)}, "peft", "absent"),
        ({"installed": lambda name: "0.1" if name == "torch" else installed(name)}, "torch", "needs torch>="),
    ],
)
def test_what_is_wrong_comes_with_what_to_do(part, what, advice, tmp_path, capsys):
    status, found = report(capsys, "flux", machine(tmp_path, **part))
    assert status == 1
    assert list(broken(found)) == [what]
    assert advice in broken(found)[what]


def test_a_small_second_gpu_disables_nothing(tmp_path, capsys):
    for cards, where in (
        ([79.0, 4.0], "gradients, on GPU 0 ("),
        ([4.0, 79.0], "gradients, on GPU 1 ("),
        ([44.0, 44.0], "gradients, on GPU 0, VLM on GPU 1 ("),
    ):
        status, found = report(capsys, "flux", machine(tmp_path, gpus=lambda c=cards: [Gpu("", f, f) for f in c]))
        assert status == 0
        assert where in next(f["text"] for f in found["findings"] if f["what"] == "memory")


def test_a_driver_that_does_not_answer_is_a_fault_only_where_torch_finds_no_gpu(tmp_path, capsys):
    status, found = report(capsys, "flux", machine(tmp_path, driver=lambda: None))
    assert status == 0
    assert "not known" in next(f["text"] for f in found["findings"] if f["what"] == "driver")
    status, found = report(capsys, "flux", machine(tmp_path, driver=lambda: None, gpus=list))
    assert status == 1
    assert "install one" in broken(found)["driver"]


@pytest.mark.parametrize(
    ("script", "told"),
    [("echo 580.1; echo 580.1", "580.1"), ("echo it failed; exit 9", None), ("true", None), (None, None)],
)
def test_the_driver_is_what_nvidia_smi_says_if_it_succeeds(script, told, tmp_path, monkeypatch):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver() == told


def test_a_driver_that_hangs_is_none(monkeypatch):
    def hang(command, timeout, **_):
        raise TimeoutExpired(command, timeout)

    monkeypatch.setattr("subprocess.run", hang)
    assert driver() is None


def test_swap_space_counts_as_memory_and_an_unknown_size_is_no_fault(tmp_path, capsys):
    for parts, said in (
        ({"ram": lambda: 16.0, "swap": lambda: 32.0}, "16 GB of main memory and 32 GB of swap space, 35 GB wanted"),
        ({"ram": lambda: None}, "35 GB wanted (computed); this system does not tell"),
    ):
        status, found = report(capsys, "flux", machine(tmp_path, **parts))
        assert status == 0
        assert said in next(f["text"] for f in found["findings"] if f["what"] == "RAM")


def test_memory_is_read_from_linuxs_table(tmp_path):
    table = tmp_path / "meminfo"
    table.write_text("MemTotal:       32000000 kB\nno entry\nSwapTotal:       8000000 kB\nSwapFree: many kB\n")
    assert meminfo("MemTotal", table) == pytest.approx(32.768)
    assert meminfo("SwapTotal", table) == pytest.approx(8.192)
    assert (meminfo("SwapFree", table), meminfo("Swap", table)) == (None, None)
    assert meminfo("MemTotal", tmp_path / "none") is None


def test_a_system_without_that_table_or_a_count_of_pages_has_an_unknown_size(monkeypatch):
    monkeypatch.setattr("editor.doctor.meminfo", lambda name: None)
    assert ram() > 0
    assert swap() == 0
    monkeypatch.delattr("os.sysconf")
    assert ram() is None


def test_offline_and_without_files_it_says_so_and_computes_the_size(tmp_path, capsys):
    hub = Hub(snapshot=nothing, authorise=nothing, token=lambda: None)
    status, found = report(capsys, "flux", machine(tmp_path, hub=hub, disk_free=lambda folder: 10.0))
    wrong = broken(found)
    assert status == 1
    said = wrong["black-forest-labs/FLUX.1-dev"]
    assert "fetch it with python -m editor.fetch flux. 33.7 GB to come, computed and not asked of the Hub: " in said
    assert "The Hub cannot be reached" in said
    assert "set HF_HOME" in wrong["disk"]
    assert "go online" in wrong["token"]


def test_no_login_and_no_accepted_licence_are_told_apart(tmp_path, capsys):
    def gated(repo):
        raise GatedRepoError("403", response=RESPONSE)

    for token, advice in ((None, "hf auth login"), ("hf_x", "not accepted")):
        hub = Hub(snapshot=nothing, authorise=gated, token=lambda token=token: token)
        _, found = report(capsys, "flux", machine(tmp_path, hub=hub))
        texts = [f["text"] for f in found["findings"] if f["what"] == "token" and "FLUX.1-dev" in f["text"]]
        assert any(advice in text for text in texts)


def test_a_hub_that_answers_with_a_refusal_is_not_called_silent(tmp_path, capsys):
    def refuse(repo, allow_patterns, local_files_only=False, dry_run=False):
        if dry_run:
            raise GatedRepoError("403", response=RESPONSE)
        return nothing()

    _, found = report(capsys, "flux", machine(tmp_path, hub=Hub(refuse, lambda repo: None, lambda: "hf_x")))
    said = broken(found)["black-forest-labs/FLUX.1-dev"]
    assert "33.7 GB to come, computed and not asked of the Hub: The licence of black-forest-labs/FLUX.1-dev" in said
    assert "reached" not in said


def test_another_vlm_is_in_the_command_that_fetches_it(tmp_path, capsys):
    hub = Hub(snapshot=nothing, authorise=nothing, token=lambda: None)
    assert main("flux", True, machine(tmp_path, hub=hub), "qwen3-vl-4b") == 1
    said = broken(json.loads(capsys.readouterr().out))
    assert "python -m editor.fetch flux --vlm Qwen3-VL-4B-Instruct." in said["Qwen/Qwen3-VL-4B-Instruct"]


def test_the_studio_needs_no_gpu(tmp_path, capsys):
    everything_in(tmp_path).snapshot("studio/flow", FLUX_PIPELINE)
    (tmp_path / "studio--flow").rename(tmp_path / "flow")
    (tmp_path / "studio" / "vlm").mkdir(parents=True)
    (tmp_path / "flow").rename(tmp_path / "studio" / "flow")
    poor = machine(tmp_path, gpus=list, driver=lambda: None)
    status, found = report(capsys, "studio", poor)
    assert (status, broken(found)) == (1, {"models": "config.json is missing: fetch the repository again"})
    (tmp_path / "studio" / "vlm" / "config.json").touch()
    (tmp_path / "studio" / "vlm" / "model.safetensors").write_bytes(NO_WEIGHTS[:-1])
    _, found = report(capsys, "studio", poor)
    assert broken(found) == {"models": "model.safetensors is cut off or damaged: fetch the repository again"}
    (tmp_path / "studio" / "vlm" / "model.safetensors").write_bytes(NO_WEIGHTS)
    assert main("studio", False, poor) == 0
    assert "FIX" not in capsys.readouterr().out


def test_the_plain_report_has_a_line_for_each_finding(tmp_path, capsys):
    assert main("flux", False, machine(tmp_path, gpus=list)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("FIX  GPU: ") for line in lines) == 1
    assert sum("computed, not measured" in line for line in lines) == len(CARDS)


def test_an_unknown_profile_is_refused(tmp_path):
    with pytest.raises(EditError, match="choose one of"):
        main("flx", False, machine(tmp_path))


def test_the_memory_model_sums_to_what_fits():
    for row in memory_table(PROFILES["flux"]):
        assert row["parts_gb"] is None or sum(row["parts_gb"].values()) <= row["card_gb"] + 0.3


def test_fetching_shows_licence_and_size_before_the_first_byte(tmp_path, capsys):
    order = []
    complete = everything_in(tmp_path)

    def snapshot(repo, allow_patterns, local_files_only=False, dry_run=False):
        if dry_run:
            return [SimpleNamespace(file_size=3e9, will_download=True)]
        if not local_files_only:
            order.append((repo, "3.0 GB" in capsys.readouterr().out))
        return complete.snapshot(repo, allow_patterns)

    fetch(PROFILES["flux"], Hub(snapshot=snapshot))
    assert order[0] == ("black-forest-labs/FLUX.1-dev", True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["flux"], "go online"),
        (["studio"], "nothing has to be fetched"),
        (["flx"], "choose one of"),
        (["flux", "--vlm", "gpt"], "There is no VLM"),
    ],
)
def test_a_failed_fetch_is_one_sentence_and_status_two(arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr(fetching, "Hub", lambda: Hub(snapshot=nothing))
    assert fetching.main(arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("name", ["flux", "sana", "flux+Qwen3-VL-4B-Instruct"])
def test_every_profile_is_fetched_by_the_command_that_is_named_for_it(name, monkeypatch):
    fetched = []
    monkeypatch.setattr(fetching, "fetch", lambda profile, hub: fetched.append(profile))
    assert fetching.main(fetch_command(chosen(name)).split()[3:]) == 0
    assert fetching.main([name]) == 0
    assert fetched == [chosen(name)] * 2


def test_a_vlm_of_the_users_own_is_not_in_the_command(flux_place):
    assert fetch_command(chosen("flux", str(flux_place.vlm))) == "python -m editor.fetch flux"
