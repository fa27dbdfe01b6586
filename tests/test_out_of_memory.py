"""GPU memory that runs out: one plan down, once, with nothing left behind; then a sentence."""

from __future__ import annotations

import gc
import weakref
from threading import Event

import pytest
import torch
from PIL import Image

from editor.__main__ import main as cli
from editor.adapters import LatentCodec
from editor.engine import Editor
from editor.loaders import reading
from editor.memory import ladder
from editor.models import Models
from editor.profiles import PROFILES
from editor.progress import Progress
from editor.recipe import Recipe
from editor.types import EditError, EditRequest
from tests.tiny_flow import CAPTION
from tests.tiny_profiles import PLAN, SMALL, flux_models


def test_running_out_of_memory_takes_the_next_plan_and_then_says_so(flux_place):
    held = flux_models(flux_place)
    before = held.condition(CAPTION).transformer
    assert held.tighten() == ladder(PROFILES["flux"])[3]
    assert held.condition(CAPTION).transformer is not before
    assert held.codec.draft is not None
    assert held.codec.rows == held.rows == 1
    while held.gradient:
        held.tighten()
    with pytest.raises(EditError, match="tightest plan"):
        held.tighten()


def request() -> EditRequest:
    picture = Image.linear_gradient("L").convert("RGB").resize((40, 32))
    return EditRequest(image=picture, instruction="make the rim red", plan=PLAN, settings=SMALL)


def failing(monkeypatch, times: int) -> list[weakref.ref]:
    """Decoding runs out of memory so many times; what it was given is remembered weakly."""
    stock, given = LatentCodec.decode, []

    def decode(self, latents):
        if len(given) == times:
            return stock(self, latents)
        given.append(weakref.ref(latents))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LatentCodec, "decode", decode)
    return given


def test_an_edit_that_runs_out_of_memory_goes_on_one_plan_down_and_leaves_nothing(flux_place, monkeypatch, capsys):
    editor, gone = Editor(flux_models(flux_place)), []
    given, stock = failing(monkeypatch, 1), Models.tighten

    def tighten(self):
        gc.collect()
        gone.append(given[0]() is None)
        return stock(self)

    monkeypatch.setattr(Models, "tighten", tighten)
    *_, last = editor.edit(request())
    assert last.done
    assert gone == [True]
    assert editor.models.hardware.plan == ladder(PROFILES["flux"])[3]
    held = f"float32, {ladder(PROFILES['flux'])[3]}, {torch.get_num_threads()} threads"
    assert Recipe.of(request(), last, "flux").held == last.held == held
    assert "ran out of memory; now: flow map in bf16, VLM in bf16, draft decoder" in capsys.readouterr().err


def test_an_edit_that_runs_out_of_memory_twice_is_one_sentence(flux_place, monkeypatch):
    editor, given = Editor(flux_models(flux_place)), failing(monkeypatch, 2)
    with pytest.raises(EditError, match=r"^The GPU ran out of memory twice: .*\.$"):
        list(editor.edit(request()))
    assert len(given) == 2
    assert editor.models.hardware.plan == ladder(PROFILES["flux"])[3]


@pytest.mark.parametrize(
    ("error", "says"),
    [(torch.OutOfMemoryError("CUDA"), "ran out of memory: ask"), (RuntimeError("device-side"), "went wrong inside")],
)
def test_where_nothing_tighter_is_left_a_fault_keeps_the_best_so_far(flux_place, monkeypatch, error, says):
    editor, stock = Editor(flux_models(flux_place)), Progress.after
    while not editor.models.tightest:
        editor.models.tighten()

    def after(self, step):
        if step.index == 1:
            raise error
        return stock(self, step)

    monkeypatch.setattr(Progress, "after", after)
    *_, before, last = editor.edit(request())
    assert says in last.broken
    assert (last.done, last.stopped, last.step) == (True, True, 0)
    assert last.best.tobytes() == before.best_so_far.image.tobytes()


def test_where_something_tighter_is_left_memory_that_runs_out_after_a_picture_begins_the_run_again(
    flux_place, monkeypatch
):
    editor, stock, failed = Editor(flux_models(flux_place)), Progress.after, []

    def after(self, step):
        if step.index == 1 and not failed:
            failed.append(step)
            raise torch.OutOfMemoryError("CUDA")
        return stock(self, step)

    monkeypatch.setattr(Progress, "after", after)
    *_, last = editor.edit(request())
    assert (len(failed), last.broken, last.stopped) == (1, "", False)
    assert editor.models.hardware.plan == ladder(PROFILES["flux"])[3]


def test_after_a_stop_memory_that_runs_out_keeps_the_best_so_far(flux_place, monkeypatch):
    editor, stock, stop = Editor(flux_models(flux_place)), Progress.after, Event()

    def after(self, step):
        if step.index == 1:
            stop.set()
            raise torch.OutOfMemoryError("CUDA")
        return stock(self, step)

    monkeypatch.setattr(Progress, "after", after)
    *_, before, last = editor.edit(request(), stop)
    assert (last.done, last.stopped, last.step) == (True, True, 0)
    assert last.best.tobytes() == before.best_so_far.image.tobytes()
    assert not editor.models.tightest


def test_what_finds_no_room_beside_a_run_takes_no_model_from_it(flux_place):
    editor = Editor(flux_models(flux_place))
    plan, running = editor.models.hardware.plan, editor.edit(request())
    next(running)

    def full():
        raise torch.OutOfMemoryError("CUDA")

    with pytest.raises(EditError, match="beside the run that goes on"):
        editor.models.within_memory(full)
    assert editor.models.hardware.plan == plan
    running.close()
    with pytest.raises(EditError, match="ran out of memory twice"):
        editor.models.within_memory(full)


@pytest.mark.parametrize(("times", "status"), [(1, 0), (9, 2)])
def test_a_round_trip_on_the_command_line_steps_down_too(times, status, flux_place, monkeypatch, tmp_path, capsys):
    held, stock, tried = flux_models(flux_place), LatentCodec.encode, []

    def encode(self, images):
        tried.append(held.hardware.plan)
        if len(tried) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return stock(self, images)

    monkeypatch.setattr(LatentCodec, "encode", encode)
    monkeypatch.setattr(Editor, "load", classmethod(lambda cls, name, vlm=None: cls(held)))
    monkeypatch.setattr("editor.__main__.prepare", lambda: None)
    Image.linear_gradient("L").convert("RGB").resize((40, 32)).save(tmp_path / "in.png")
    assert cli(["roundtrip", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png")]) == status
    assert tried == list(ladder(PROFILES["flux"])[2:4])
    assert (tmp_path / "out.png").exists() == (status == 0)
    assert ("ran out of memory twice" in capsys.readouterr().err) == (status == 2)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_a_fault_of_the_gpu_is_not_called_a_damaged_file(error, tmp_path):
    def fail():
        with reading(tmp_path):
            raise error("CUDA error: an illegal memory access was encountered")

    with pytest.raises(error):
        fail()


def test_loading_the_vlm_steps_down_too(flux_place, monkeypatch):
    held, tried = flux_models(flux_place), []

    def load(times):
        def work():
            tried.append(held.hardware.plan)
            if len(tried) <= times:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return held.vlm

        return work

    assert held.within_memory(load(1)).device == held.hardware.device
    assert tried == list(ladder(PROFILES["flux"])[2:4])
    with pytest.raises(EditError, match="ran out of memory twice"):
        held.within_memory(load(9))


def test_the_studio_has_no_tighter_plan(flux_place):
    with pytest.raises(EditError, match="fewer candidates"):
        Models(PROFILES["studio"], flux_place).tighten()
