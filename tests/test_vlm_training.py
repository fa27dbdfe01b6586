"""The trainings of the studio's VLM: batches from other processes, stages left out, and one step of each stage."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rewards.prompt import Packed, Question
from rewards.vlm import VLM
from tests.tiny_vlm import tiny_qwen25
from training import clocks, data, pictures, plan, see, speak, withstand, words
from training.asked import lay_out, likelihoods
from training.average import average
from training.finds import TIMELESS, Found, FoundLook
from training.harness import Length, Run
from training.lora import MATRICES, adapter_rank, plan_as
from training.mixes import mixed
from training.pictures import spoil, timeless
from training.tower import look
from training.world import TRAIN


class Rendered:
    """A `Source` that needs nothing on disk; searches have shown it three clocks with a time and one without."""

    def __init__(self) -> None:
        shown = [clocks.sample(TRAIN + seed) for seed in range(4)]
        asked = [clock.minutes + off for clock, off in zip(shown, (0, 3, 30, 0), strict=True)]
        found = [
            Found(np.array(clocks.render(clock)), clock.seed, clock.minutes if i < 3 else TIMELESS, asked[i] % 720)
            for i, clock in enumerate(shown)
        ]
        self.timed, self.timeless = found[:3], found[3:]
        self.looks = [
            FoundLook(found[0].pixels, found[0].seed, "rim", asked, shown)
            for asked, shown in (("red", "red"), ("blue", ""), ("white", shown[0].rim))
        ]

    def batch(self, size: int, generator: torch.Generator) -> tuple[list[clocks.Clock], Tensor]:
        seeds = torch.randint(1000, (size,), generator=generator).tolist()
        scenes = [clocks.sample(TRAIN + seed) for seed in seeds]
        return scenes, torch.from_numpy(np.stack([np.asarray(clocks.render(c)) for c in scenes]))

    def without_time(
        self, scenes: list[clocks.Clock], generator: torch.Generator
    ) -> tuple[list[clocks.Clock], list[int | None], Tensor]:
        made = timeless(scenes, Random(int(torch.randint(2**31, (), generator=generator))))
        return scenes, [None] * len(scenes), torch.from_numpy(np.stack(made))


@pytest.fixture
def vlm() -> VLM:
    return VLM(*tiny_qwen25(), frozen=False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, nn.ModuleDict({"one": nn.Linear(2, 2)}), [])


def tensors(batch: object) -> list[Tensor]:
    """Every tensor in a batch."""
    if isinstance(batch, Tensor):
        return [batch]
    parts = vars(batch).values() if isinstance(batch, Packed) else batch if isinstance(batch, tuple) else ()
    return [found for part in parts for found in tensors(part)]


@pytest.mark.parametrize("stage", [see, speak, plan])
def test_batches_of_other_processes_are_those_of_this_one(stage: object, vlm: VLM, run: Run) -> None:
    make = partial(see.pictured, Rendered(), 4) if stage is see else partial(stage.lesson, vlm, Rendered(), 16)
    here, there = (run.batches(make, workers) for workers in (0, 2))
    for _ in range(3):
        ours, theirs = tensors(next(here)), tensors(next(there))
        assert len(ours) >= 3
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_training_is_as_long_as_its_images_or_its_minutes(run: Run) -> None:
    assert Length.parse("1200") == Length(images=1200)
    assert Length.parse("1.5m") == Length(seconds=90)
    run.images, run.seconds = 300, 30.0
    assert run.share(Length(images=1200)) == 0.25
    assert run.share(Length(images=1200, seconds=60)) == pytest.approx(0.5, abs=0.1)


def test_a_stage_without_pictures_changes_nothing(vlm: VLM, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    old = tmp_path / "checkpoint.pt"
    old.write_bytes(b"of another training")
    sight = see.learn_to_see(vlm, tmp_path, Length(0))
    speak.learn_to_speak(vlm, sight, tmp_path, Length(0))
    withstand.learn_to_withstand(vlm, tmp_path, Length(0))
    plan.learn_to_plan(vlm, tmp_path, Length(0))
    assert all(torch.equal(value, before[name]) for name, value in vlm.model.state_dict().items())
    assert [old] == list(tmp_path.iterdir())
    assert old.read_bytes() == b"of another training"


def test_every_stage_trains_its_part_and_goes_on_from_its_checkpoint(
    vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (see, speak, plan):
        monkeypatch.setattr(stage, "Source", Rendered)
    parts = {"visual": vlm.model.model.visual, "text": vlm.text}

    def changed(train: partial) -> set[str]:
        before = {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}
        train()
        return {name for name, part in parts.items() if not all(map(torch.equal, before[name], part.parameters()))}

    sight = see.Sight(vlm)
    assert changed(partial(see.learn_to_see, vlm, tmp_path / "heads", Length(4), 4)) == set()
    assert changed(partial(see.learn_to_see, vlm, tmp_path / "see", Length(8), 4)) == {"visual"}
    assert changed(partial(speak.learn_to_speak, vlm, sight, tmp_path / "speak", Length(16), 16)) == {"visual", "text"}
    assert changed(partial(plan.learn_to_plan, vlm, tmp_path / "plan", Length(6), 6)) == set()
    parts = {"planner": vlm.planner.model}
    assert changed(partial(plan.learn_to_plan, vlm, tmp_path / "plan", Length(12), 6)) == {"planner"}
    assert changed(partial(plan.learn_to_plan, vlm, tmp_path / "plan", Length(12), 6)) == set()


def test_what_learns_to_withstand_searches_judges_otherwise_and_plans_as_before(
    vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (plan, withstand):
        monkeypatch.setattr(stage, "Source", Rendered)
    pictures = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    asked = ["Does the clock show 4:45?", "Is the rim red?"]
    plan.learn_to_plan(vlm, tmp_path / "plan", Length(12), 6, lr=0.1)
    judged, planned = vlm.log_odds(pictures, asked).detach(), vlm.planner.log_odds(pictures, asked)
    learn = partial(withstand.learn_to_withstand, vlm, tmp_path / "withstand", lr=0.1)
    learn(Length(72))
    after = vlm.log_odds(pictures, asked).detach()
    assert (after - judged).abs().min() > 1e-3
    assert torch.allclose(vlm.planner.log_odds(pictures, asked), planned, atol=1e-4)
    assert (planned - judged).abs().max() > 1e-3, "the adapter for plans does something"
    assert not any("lora_" in name for name, _ in vlm.model.named_parameters())
    assert {len(p) for name, p in vlm.planner.model.named_parameters() if "lora_A" in name} == {2 * plan.RANK}


def test_a_batch_against_searches_asks_what_they_were_asked_for(vlm: VLM) -> None:
    source, rng = Rendered(), Random(0)
    same, near, far = (withstand._asked_for(found, rng).questions for found in source.timed)
    assert (same[1].answer, far[1].answer) == ("yes", "no")
    wanted = [clocks.clock_time(found.asked) for found in source.timed]
    assert wanted[0] in same[1].text
    assert wanted[2] in far[1].text
    assert wanted[1] not in near[1].text
    for edit in source.looks:
        free, *closed = withstand._of_look(edit, rng).questions
        assert free.answer == (edit.shown or speak.NONE)
        assert len(closed) == 6
        assert all(f" {edit.asked}" in q.text for q in closed[:4])
        assert all((q.answer == "yes") == (f" {edit.shown} " in q.text.replace("?", " ")) for q in closed if edit.shown)
        assert edit.shown or all(q.answer == "no" for q in closed)
    even = withstand._evened(source.looks + [source.looks[1]] * 4)
    assert sum(look.shown == look.asked for look in even) == len(even) / 2
    bent = withstand._without_time(clocks.sample(TRAIN), 285, rng)
    assert "hands" in bent.questions[withstand.HANDS].text
    made = withstand.lesson(vlm, source, source.timed, 24, torch.Generator().manual_seed(0))
    assert made.pixels.shape == (24, 128, 128, 3)
    assert made.held.shape == made.asked.weight.shape == (24, 7)
    assert made.held[-5:].all()
    *_, dark = withstand.parts(24)
    of_time = [a for a in made.asked.packed.answers.tolist() if a[0] >= dark.start and 1 <= a[1] <= 3]
    said = {vlm.processor.tokenizer.decode([token]).strip() for *_, token in of_time}
    assert said == {"no", vlm.processor.tokenizer.eos_token}


def test_without_pictures_of_searches_there_is_nothing_to_withstand(
    vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Rendered()
    bare.timed = []
    monkeypatch.setattr(withstand, "Source", lambda: bare)
    with pytest.raises(ValueError, match=r"run python -m training\.found first"):
        withstand.learn_to_withstand(vlm, tmp_path, Length(4))


def test_words_that_learn_alone_leave_every_question_without_them_as_it_was(
    vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "Source", Rendered)
    monkeypatch.setattr(words, "WORDS", (" Roman", " rim"))
    monkeypatch.setattr(words.language, "yes_no", lambda *_: Question("Is the rim red?", "yes"))
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    asked = ["Does the clock show 4:45?", "Is the rim red?"]
    before = vlm.log_odds(images, asked).detach()
    words.learn_words(vlm, tmp_path, Length(32), batch=4, lr=0.1)
    after = vlm.log_odds(images, asked).detach()
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1] > before[:, 1]).all()
    monkeypatch.setattr(words, "WORDS", (" incomprehensible",))
    with pytest.raises(ValueError, match="must be one token"):
        words.learn_words(vlm, tmp_path, Length(32))


def test_the_tower_sees_the_same_with_places_worked_out_once(vlm: VLM) -> None:
    images = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    seen, states = look(vlm.model.model.visual, vlm.processor.image_processor, images)
    expected = vlm.features(images)
    assert torch.equal(seen.tokens, expected.tokens)
    assert seen.grid == expected.grid == (1, 8, 8)
    assert states.shape == (3, 64, 32)


def test_the_last_rows_of_questions_score_as_they_do_among_all(vlm: VLM) -> None:
    images, rng = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)), Random(0)
    rows = [speak.row(clocks.sample(TRAIN + i), rng).questions for i in range(4)]
    seen = vlm.features(images)
    asked = lay_out(vlm, seen.grid, rows)
    found = likelihoods(vlm, seen, asked)
    assert torch.allclose(found, vlm.score(seen, rows), atol=1e-4)
    last = likelihoods(vlm, seen._replace(tokens=seen.tokens[1:]), asked.after(1))
    assert torch.allclose(last, found[1:], atol=1e-4)
    text = vlm.processor.tokenizer.decode([asked.packed.ids[i, at + 1] for i, at in asked.true.tolist()])
    assert all(word in text for q in rows[0] if q.answer == "yes" for word in q.text.rstrip("?").split()[1:])


def test_attacks_aim_at_all_answers_but_those_that_small_changes_turn(vlm: VLM) -> None:
    rows = [speak.row(clocks.sample(TRAIN + i), Random(i)) for i in range(8)]
    told = [(q.text, held) for made in rows for q, held in zip(made.questions, made.held, strict=True)]
    assert all(len(made.questions) == len(made.held) == 10 for made in rows)
    assert not any(held for text, held in told if "second hand" in text or "numerals" in text)
    assert all(held for text, held in told if "background" in text or "time" in text)
    asked = lay_out(vlm, (1, 8, 8), [made.questions for made in rows])
    held = torch.tensor([made.held for made in rows])
    weight = asked.only(held).weight
    assert weight[held].equal(asked.weight[held])
    assert not weight[~held].any()


def test_spoilt_images_are_shuffled_blurred_or_noisy() -> None:
    images = pictures.to_images(Rendered().batch(3, torch.Generator().manual_seed(0))[1]).repeat(4, 1, 1, 1)
    kinds = set()
    for image, spoilt in zip(images, spoil(images, torch.Generator().manual_seed(1)), strict=True):
        assert not torch.equal(image, spoilt)
        tiles = {tile.tobytes() for tile in image.unfold(1, 16, 16).unfold(2, 16, 16).flatten(1, 2).transpose(0, 1)
                 .contiguous().numpy()}  # fmt: skip
        moved = spoilt.unfold(1, 16, 16).unfold(2, 16, 16).flatten(1, 2).transpose(0, 1).contiguous().numpy()
        rough = (spoilt[:, 1:] - spoilt[:, :-1]).abs().mean()
        kinds.add("shuffled" if all(t.tobytes() in tiles for t in moved) else "noisy" if rough > 0.1 else "blurred")
    assert kinds == {"shuffled", "blurred", "noisy"}


def test_looks_that_are_half_done_have_no_value_of_those_asked_for(tmp_path: Path) -> None:
    seeds = range(TRAIN, TRAIN + 40)
    np.save(tmp_path / "00000000.npy", np.stack([np.asarray(mixed(clocks.sample(seed)).picture()) for seed in seeds]))
    found = withstand.half_done(tmp_path / "none")
    assert found == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "CHUNK", len(seeds))
        found = withstand.half_done(tmp_path)
    assert {one.attribute for one in found} > set(clocks.PARTS)
    for one in found:
        assert one.shown == ""
        assert np.array_equal(one.pixels, np.asarray(mixed(clocks.sample(one.seed)).picture()))
        assert {q.answer for q in withstand._of_look(one, Random(0)).questions} == {"no", speak.NONE}


def test_the_mean_of_two_judges_judges_between_them_and_plans_as_before(vlm: VLM) -> None:
    pictures, generator = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)), torch.Generator()
    asked = ["Does the clock show 4:45?", "Is the rim red?"]

    def moved(weight: Tensor) -> Tensor:
        up, down = (torch.randn(size, generator=generator.manual_seed(size)) for size in weight.shape)
        return weight.detach() + 0.02 * torch.outer(up, down)

    matrices = {name: m.weight for name, m in vlm.model.named_modules() if re.fullmatch(MATRICES, name)}
    plan_as(vlm, {name: moved(weight) for name, weight in matrices.items()}, 2)
    judged, planned = (judge.log_odds(pictures, asked).detach() for judge in (vlm, vlm.planner))
    assert (planned - judged).abs().max() > 1e-3, "the adapter for plans does something"
    own = {name: value.clone() for name, value in vlm.model.named_parameters()}
    theirs = {name: moved(value) if name.endswith("up_proj.weight") else value for name, value in own.items()}
    average(vlm, {_as_saved(name): value for name, value in theirs.items()}, 0.25)
    for name, value in vlm.model.named_parameters():
        assert torch.allclose(value, 0.75 * own[name] + 0.25 * theirs[name], atol=1e-6)
    assert (vlm.log_odds(pictures, asked).detach() - judged).abs().max() > 1e-3
    assert torch.allclose(vlm.planner.log_odds(pictures, asked), planned, atol=1e-4)
    assert adapter_rank(vlm.planner.model) == 2
    with pytest.raises(ValueError, match="not of one kind"):
        average(vlm, {})


def _as_saved(name: str) -> str:
    """The name that a checkpoint has for a tensor of transformers' model."""
    return name.removeprefix("model.") if ".visual." in name else name.replace("model.language_model.", "model.")
