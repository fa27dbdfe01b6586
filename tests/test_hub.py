"""What is said of the Hub's troubles: by the Hub played by a function, and by a server that answers as the Hub does."""

from __future__ import annotations

import errno
import json
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    XetDownloadError,
)
from safetensors.torch import save

from editor.hub import Hub, cut_off, faults, missing
from editor.profiles import PROFILES
from editor.repos import FLUX_DEV, FLUX_SCHNELL, SANA_SPRINT, TAEF1, VLMS
from editor.types import EditError
from tests.published import NO_WEIGHTS


def answer(status: int) -> SimpleNamespace:
    return SimpleNamespace(headers={}, request=None, status_code=status)


def hub(error: Exception | None = None, token: str | None = "hf_x", **parts) -> Hub:
    def fail(*_, **__):
        raise error

    return Hub(**{"snapshot": fail, "authorise": fail, "token": lambda: token, **parts})


@pytest.mark.parametrize(
    ("error", "token", "sentence"),
    [
        (GatedRepoError("401", response=answer(401)), None, "hf auth login, then accept its licence at https://"),
        (
            GatedRepoError("403", response=answer(403)),
            "hf_x",
            "not accepted yet: accept it at https://huggingface.co/black",
        ),
        (
            GatedRepoError("enable access to public gated repos in your fine-grained token", response=answer(403)),
            "hf_x",
            "may not read gated repositories",
        ),
        (RepositoryNotFoundError("404", response=answer(404)), "hf_bad", "token may be wrong or expired"),
        (HfHubHTTPError("503", response=answer(503)), "hf_x", "try again later"),
        (OfflineModeIsEnabled("offline"), "hf_x", "go online"),
        (LocalEntryNotFoundError("no network"), "hf_x", "go online"),
        (DryRunError("no network"), "hf_x", "go online"),
        (ConnectionError("down"), "hf_x", "go online"),
        (XetDownloadError("broken off"), "hf_x", "try again later"),
        (OSError(errno.ENOSPC, "no space"), "hf_x", "disk is full"),
    ],
)
def test_every_trouble_has_its_sentence(error, token, sentence):
    for call in (Hub.fetch, Hub.gigabytes, Hub.check_access):
        with pytest.raises(EditError, match=sentence) as raised:
            call(hub(error, token), FLUX_DEV)
        assert FLUX_DEV.id in str(raised.value)
        assert str(raised.value).endswith(".")


SERVED = {
    "gated, not logged in": (401, {"X-Error-Code": "GatedRepo"}, None, "hf auth login, then accept"),
    "licence not accepted": (403, {"X-Error-Code": "GatedRepo"}, "hf_x", "not accepted yet"),
    "token without scope": (
        403,
        {"X-Error-Message": "Please enable access to public gated repositories in your fine-grained token settings"},
        "hf_x",
        "may not read gated repositories",
    ),
    "token expired": (
        401,
        {"X-Error-Message": "Invalid credentials in Authorization header"},
        "hf_x",
        "token may be wrong or expired",
    ),
    "no such repository": (404, {"X-Error-Code": "RepoNotFound"}, "hf_x", "does not show"),
    "Hub down": (500, {}, "hf_x", "try again later"),
}


@pytest.fixture
def started():
    """A function that starts a server with a handler of requests, and gives its address."""
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def served(started, tmp_path):
    """A function that starts a server which answers every request alike, and gives the hub that asks it."""

    def start(status: int, headers: dict[str, str], token: str | None) -> Hub:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            do_HEAD = do_GET
            log_message = staticmethod(lambda *_: None)

        address = started(Answer)
        authorise = partial(HfApi(address, token=token or False).auth_check)
        asking = partial(snapshot_download, endpoint=address, token=token or False, cache_dir=tmp_path)
        return Hub(asking, authorise, lambda: token)

    return start


@pytest.mark.parametrize("case", SERVED)
@pytest.mark.parametrize("call", [Hub.fetch, Hub.gigabytes, Hub.check_access])
def test_the_librarys_own_errors_are_told_apart(case, call, served):
    """The library wraps most answers as lost connections: what the Hub said lies among the causes."""
    *answered, sentence = SERVED[case]
    with pytest.raises(EditError, match=sentence):
        call(served(*answered), FLUX_DEV)


CONTENT = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": save({"a": torch.arange(4096)})}
"""Of a repository with the files of TAEF1."""


def repository(broken_off: list[int], ranges: list[str | None]) -> type[BaseHTTPRequestHandler]:
    """Serves CONTENT as the Hub does, weights only up to the numbers of bytes in `broken_off`, one after the other.

    What was asked for of the weights is added to `ranges`: the header Range, or None for all.
    """
    sha = "a" * 40

    class Serve(BaseHTTPRequestHandler):
        log_message = staticmethod(lambda *_: None)

        def do_GET(self):
            path = self.path.partition("?")[0]
            if path.startswith("/api/"):
                tree = [{"type": "file", "path": p, "size": len(d), "oid": "b" * 40} for p, d in CONTENT.items()]
                self.answer(json.dumps(tree if "/tree/" in path else {"id": TAEF1.id, "sha": sha}).encode())
                return
            data, wanted = CONTENT[path.rpartition("/")[2]], self.headers.get("Range")
            start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            end = len(data)
            if path.endswith(".safetensors") and self.command == "GET":
                ranges.append(wanted)
                end = broken_off.pop(0) if broken_off else end
            self.answer(data[start:end], data, start)

        do_HEAD = do_GET

        def answer(self, sent: bytes, whole: bytes | None = None, start: int = 0) -> None:
            whole = sent if whole is None else whole
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(whole) - start))
            self.send_header("ETag", f'"{len(whole):040x}"')
            self.send_header("X-Repo-Commit", sha)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(sent)

    return Serve


def test_a_download_that_breaks_off_goes_on_where_it_stopped(started, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    ranges = []
    address = started(repository([10_500, 20_500], ranges))
    folder = Hub(partial(snapshot_download, endpoint=address, token=False, cache_dir=tmp_path)).fetch(TAEF1)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == CONTENT
    first, *again = ranges
    assert first is None
    starts = [int(wanted.removeprefix("bytes=").removesuffix("-")) for wanted in again]
    assert len(starts) == 2
    assert 0 < starts[0] <= 10_500 < starts[1] <= 20_500


def test_a_file_that_was_cut_off_is_fetched_again_over_the_network(started, tmp_path):
    ranges = []
    address = started(repository([], ranges))
    asking = Hub(partial(snapshot_download, endpoint=address, token=False, cache_dir=tmp_path))
    weights = asking.fetch(TAEF1) / TAEF1.files[1]
    assert asking.gigabytes(TAEF1) == 0
    weights.resolve().write_bytes(weights.read_bytes()[:-1])
    assert asking.gigabytes(TAEF1) * 1e9 == pytest.approx(len(CONTENT[TAEF1.files[1]]))
    assert asking.fetch(TAEF1) / TAEF1.files[1] == weights
    assert weights.read_bytes() == CONTENT[TAEF1.files[1]]
    asking.fetch(TAEF1)
    assert ranges == [None, None]


def test_a_repository_that_became_gated_asks_for_the_login_too(served):
    with pytest.raises(EditError, match="hf auth login, then accept"):
        served(401, {"X-Error-Code": "GatedRepo"}, None).fetch(SANA_SPRINT)


def test_what_is_gated_says_so_before_its_download():
    for profile in PROFILES.values():
        gated = [repo for repo in profile.repos if repo.gated]
        assert [repo in (FLUX_DEV, FLUX_SCHNELL) for repo in profile.repos] == [repo.gated for repo in profile.repos]
        for repo in gated:
            assert any("ccept" in notice and repo.name in notice for notice in profile.notices)


def test_what_is_not_there_comes_with_the_command_that_fetches_it():
    with pytest.raises(EditError, match=r"python -m editor\.fetch"):
        hub(LocalEntryNotFoundError("absent")).folder(TAEF1)


def test_a_download_that_the_library_knows_for_incomplete_is_half_way(tmp_path):
    with pytest.raises(EditError, match=r"stopped half-way: fetch it with python -m editor\.fetch"):
        hub(IncompleteSnapshotError("3 files", snapshot_path=str(tmp_path))).folder(TAEF1)


def pipeline(folder):
    """The files of FLUX.1-dev that a finished download leaves, all without content, the transformer in two shards."""
    for part in ("text_encoder", "text_encoder_2", "transformer", "vae"):
        (folder / part).mkdir()
        (folder / part / "config.json").touch()
    for file in ("scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer_2/spiece.model"):
        (folder / file).parent.mkdir()
        (folder / file).touch()
    for part in ("text_encoder", "text_encoder_2", "vae"):
        (folder / part / "model.safetensors").write_bytes(NO_WEIGHTS)
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard in shards:
        (folder / "transformer" / shard).write_bytes(NO_WEIGHTS)
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}))
    (folder / "model_index.json").touch()
    return folder


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        ("model_index.json", "model_index.json"),
        ("transformer/diffusion_pytorch_model-00002-of-00002.safetensors", None),
        ("transformer/diffusion_pytorch_model.safetensors.index.json", None),
        ("transformer/config.json", None),
        ("vae/model.safetensors", r"vae/\*\.safetensors"),
        ("scheduler/scheduler_config.json", None),
        ("tokenizer/vocab.json", "tokenizer/tokenizer.json"),
    ],
)
def test_a_half_download_names_what_is_missing(absent, named, tmp_path):
    half = hub(snapshot=lambda *_, **__: str(pipeline(tmp_path) if not any(tmp_path.iterdir()) else tmp_path))
    assert half.folder(FLUX_DEV) == tmp_path
    (tmp_path / absent).unlink()
    with pytest.raises(EditError, match=rf"half-way \({named or absent} is missing\)"):
        half.folder(FLUX_DEV)


def test_an_index_that_is_cut_off_is_damaged(tmp_path):
    index = next(pipeline(tmp_path).rglob("*.index.json"))
    index.write_text(index.read_text()[:20])
    name = index.relative_to(tmp_path).as_posix()
    assert cut_off(tmp_path) == {name: 0}
    assert faults(tmp_path, FLUX_DEV) == [f"{name} is cut off or damaged"]


def test_a_missing_folder_and_a_missing_file_are_found(tmp_path):
    assert missing(tmp_path, TAEF1) == list(TAEF1.files)
    assert "transformer" in missing(tmp_path, FLUX_DEV)
    for repo in VLMS.values():
        assert {"config.json", "preprocessor_config.json", "*.safetensors"} < set(missing(tmp_path, repo))


def test_variants_in_half_precision_are_neither_asked_for_nor_enough(tmp_path):
    vae = pipeline(tmp_path) / "vae"
    for name in ("model.fp16-00001-of-00002.safetensors", "model.bf16.safetensors"):
        (vae / name).write_bytes(b"cut off")
    assert faults(tmp_path, FLUX_DEV) == []
    (vae / "model.safetensors").unlink()
    assert faults(tmp_path, FLUX_DEV) == ["vae/*.safetensors is missing"]


def test_weights_are_whole_if_they_are_as_long_as_their_header_says(tmp_path):
    file, data = tmp_path / "model.safetensors", save({"a": torch.zeros(3, 5), "b": torch.ones(2)}, {"format": "pt"})
    file.write_bytes(data)
    assert cut_off(tmp_path) == {}
    for damaged in (data[:-1], data + b"x", data[: -4 * 2 - 4 * 15]):
        file.write_bytes(damaged)
        assert cut_off(tmp_path) == {"model.safetensors": len(data)}
    for damaged in (data[:20], data[:4], b"", b"version https://git-lfs", b"\xff" * 99):
        file.write_bytes(damaged)
        assert cut_off(tmp_path) == {"model.safetensors": 0}


def test_weights_that_are_cut_off_are_counted_and_fetched_again(tmp_path):
    """The library takes a file that is there for a whole one."""
    name, asked = "diffusion_pytorch_model.safetensors", []
    (tmp_path / "config.json").touch()
    (tmp_path / name).write_bytes(NO_WEIGHTS[:-1])

    def snapshot(repo, allow_patterns, local_files_only=False, dry_run=False, force_download=False):
        if dry_run:
            return [SimpleNamespace(file_size=size, will_download=False) for size in (1e6, 5e9)]
        if force_download:
            asked.extend(allow_patterns)
            (tmp_path / name).write_bytes(NO_WEIGHTS)
        return str(tmp_path)

    torn = Hub(snapshot=snapshot)
    with pytest.raises(EditError, match=rf"stopped half-way \({name} is cut off or damaged\): fetch it with"):
        torn.folder(TAEF1)
    assert torn.gigabytes(TAEF1) == len(NO_WEIGHTS) / 1e9
    assert torn.fetch(TAEF1) == tmp_path
    assert asked == [name]
    assert torn.gigabytes(TAEF1) == 0.0
    torn.fetch(TAEF1)
    assert asked == [name]


def test_the_size_is_what_is_still_to_come(tmp_path):
    files = [
        SimpleNamespace(file_size=2_000_000_000, will_download=True),
        SimpleNamespace(file_size=5_000_000_000, will_download=False),
    ]
    asked = hub(snapshot=lambda *_, dry_run=False, **__: files if dry_run else str(tmp_path))
    assert asked.gigabytes(FLUX_DEV) == 2.0


def test_looking_never_downloads(tmp_path):
    asked = []

    def snapshot(*_, **options):
        asked.append(options)
        (tmp_path / "config.json").touch()
        (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(NO_WEIGHTS)
        return str(tmp_path)

    Hub(snapshot=snapshot).folder(TAEF1)
    assert asked == [{"allow_patterns": list(TAEF1.files), "local_files_only": True}]


def test_only_the_studio_comes_with_the_repository():
    assert [name for name, profile in PROFILES.items() if not profile.repos] == ["studio"]
