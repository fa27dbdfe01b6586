"""ClockBench with a stand-in for the engine: cases, successes, records, rows, swaps, command line."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import clockbench, flowedit, presets, trials
from benchmarks.cases import CYCLE, FARTHER, KINDS, cases
from benchmarks.clockbench import Bench, main
from benchmarks.judge import minutes_off, read
from benchmarks.records import conditions, merged, read_records, write_records
from benchmarks.report import COLUMNS, budgets_table, failures_table, interval, kinds_table, rows, table
from benchmarks.trials import Planned, planned, trial
from editor import drafts, images
from editor.baselines import planned_nfe
from editor.inversion import RoundTrip
from editor.mark import file_bears_mark
from editor.types import CheckResult, Cost, EditError, EditUpdate, SearchSettings
from rewards.plan import keep_checks
from rewards.vlm import Calls
from training import clock_plans, clocks
from training.world import TEST, TUNE

FEW = cases(TUNE, 20)
ROOT = Path(__file__).resolve().parent.parent


class Perfect:
    """An engine that answers every request as its first case with this source deserves, or not at all."""

    models = SimpleNamespace(hardware=SimpleNamespace(held="float32, everything whole, 3 threads"))

    def __init__(self, known, does=lambda case: case.answer):
        self.known = {case.image.tobytes(): case for case in known}
        self.does = does

    def plan(self, image, instruction):
        case = self.known[image.tobytes()]
        if case.kind == "nothing":
            raise EditError("The planner refuses.")
        return case.plan

    def edit(self, request):
        case = self.known[request.image.tobytes()]
        update = EditUpdate(stage="invert", message="", plan=request.plan, cost=Cost(nfe=32))
        yield update
        yield replace(
            update, stage="done", best=self.does(case), score=3.0, source_score=-1.0,
            checks=tuple(CheckResult(check, 0.1, 0.9) for check in request.plan.checks),
            cost=Cost(nfe=132, decodes=9, vlm_calls=40, seconds=0.5),
        )  # fmt: skip


# Cases ---------------------------------------------------------------------------------------------------------------


def test_cases_are_the_same_every_time_and_whichever_kinds_are_asked():
    assert cases(TUNE, 20) == FEW
    assert [case.kind for case in FEW] == list(CYCLE)
    assert cases(TUNE, 3, ["relative"]) == [case for case in cases(TUNE, 40) if case.kind == "relative"][:3]
    assert {case.source for case in cases(TEST, 20)}.isdisjoint(case.source for case in FEW)


def test_doing_nothing_never_succeeds_except_where_nothing_was_asked():
    for case in cases(TUNE, 60):
        assert case.success(read(case.image, case.source), 10) == (case.kind == "nothing")
        if "time" in case.changed:
            assert minutes_off(case.target.minutes, case.source.minutes) > FARTHER


def test_the_perfect_answer_always_succeeds_and_moves_nothing():
    for case in FEW:
        found = read(case.answer, case.source)
        assert case.success(found, 3)
        assert not case.moved(found)


def test_what_should_have_stayed_is_named_when_it_moved():
    case = next(case for case in FEW if case.kind == "face")
    colour = next(c for c in clocks.COLOURS if clocks.legible(c, case.target.face, case.target.hands,
                                                              case.target.background) and c != case.target.rim)
    spoilt = replace(case.target, rim=colour, hour=(case.target.hour + 3) % 12)
    assert set(case.moved(read(clocks.render(spoilt), case.source))) == {"rim", "time"}


# Trials --------------------------------------------------------------------------------------------------------------


def run(editor, case, oracle=True):
    return trial(editor, planned(editor, case, oracle), "fmtt-map-1", 100, SearchSettings(), None)


def test_a_perfect_edit_is_recorded_with_what_it_cost():
    record, image = run(Perfect(FEW), FEW[0])
    assert image.tobytes() == FEW[0].answer.tobytes()
    assert record.success_3
    assert record.success_10
    assert record.believed
    assert record.plan_exact
    assert (record.psnr, record.ssim, record.moved, record.refused) == (100.0, pytest.approx(1.0), (), "")
    assert (record.nfe, record.inversion_nfe, record.decodes, record.vlm_calls) == (100, 32, 9, 40)
    assert record.minutes_off <= 1
    assert record.peak_mb > 10


def test_an_edit_that_did_nothing_fails_though_the_vlm_believes_it():
    record, _ = run(Perfect(FEW, lambda case: case.image), FEW[0])
    assert record.believed
    assert not record.success_10
    assert record.psnr == record.source_psnr


def test_a_refused_plan_fails_and_leaves_the_source():
    nothing = next(case for case in FEW if case.kind == "nothing")
    record, image = run(Perfect(FEW), nothing, oracle=False)
    assert record.refused == "The planner refuses."
    assert not record.success_3
    assert record.believed is None
    assert image.tobytes() == nothing.image.tobytes()


class Pixels:
    """Latents that are pictures."""

    models = property(lambda self: self)
    codec = property(lambda self: self)
    profile = SimpleNamespace(size=128)
    hardware = SimpleNamespace(device="cpu")
    encode = render = staticmethod(lambda latents: latents)

    def invert(self, image, start, prompt=""):
        square, placement = images.fit(image, 128)
        unit = images.to_unit(square)
        return SimpleNamespace(placement=placement, before=unit, back=unit, trip=RoundTrip(unit, unit, 4))


def test_the_truth_doubts_the_source_and_is_sure_of_the_answer_alone():
    case, settings = FEW[0], SearchSettings()
    truth = trials.Truth.of(case, Pixels(), case.plan, settings, Calls())
    source, answer = (images.to_unit(image) for image in (case.image, case.answer))
    half = torch.lerp(source, answer, 0.5).requires_grad_()
    drifted = torch.where(truth.where > 0, answer, 0.5)
    found = truth.evaluate(torch.cat([source, half, answer, drifted]))
    assert found.probabilities.shape == (4, len(case.plan.checks + keep_checks(case.plan)))
    asked, stays = found.probabilities.split([truth.wanted, len(case.plan.keep)], 1)
    assert (stays == 1).all()
    assert asked[0].max() < 0.01
    assert asked[2].min() > 0.99
    assert found.reward[0] < found.reward[1] < found.reward[2] == found.reward[3]
    (slope,) = torch.autograd.grad(found.reward[1], half)
    assert (slope * (answer - source)).sum() > 0


def test_the_truth_can_replace_the_search():
    case, settings = FEW[0], SearchSettings(method="best-of-n", particles=3, steps=2, renoise=0.0, keep=1)
    perfect, image = trial(Pixels(), Planned(case, case.plan, "", 0.0), "best-of-n", 25, settings, "latent")
    assert perfect.success_3
    assert perfect.score is None
    assert trials.psnr(image, case.answer) > 35


@pytest.mark.parametrize("swap", [None, "reward", "latent"])
def test_the_engine_itself_is_measured(tiny_editor, swap):
    settings = SearchSettings(particles=2, steps=2, corrections=1, keep=1)
    record, image = trial(tiny_editor, Planned(FEW[0], FEW[0].plan, "", 0.0), "fmtt-map-1", 25, settings, swap)
    assert image.size == FEW[0].image.size
    assert record.refused == ""
    assert record.nfe == (0 if swap == "latent" else planned_nfe(settings))
    assert record.inversion_nfe > 0
    assert (record.believed is None) == (swap == "latent")
    assert record.seconds > 0


# Presets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(presets.presets()))
def test_every_method_spends_its_budget_and_no_more(name):
    for budget in presets.budgets(name):
        settings = presets.settings(name, budget)
        if name == flowedit.METHOD:
            assert 0.8 * budget <= 2 * settings.particles * settings.steps <= budget
            continue
        assert 0.8 * budget <= planned_nfe(settings) <= budget
        if settings.method == "fmtt":
            first = planned_nfe(settings.but(last_jumps=None, searches=1))
            count, jumps = settings.drafts or settings.particles, settings.draft_jumps
            drafted = drafts.planned(count, jumps) if jumps else 0
            assert drafted + first <= budget, "where captions suffice"


def test_unknown_methods_and_budgets_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="choose from prompt-only"):
        presets.settings("magic", 100)
    with pytest.raises(ValueError, match="choose from 25"):
        presets.settings("best-of-n", 7)


# Report --------------------------------------------------------------------------------------------------------------


def test_intervals_hold_the_mean_and_repeat():
    values = np.arange(50) % 2
    mean, low, high = interval(values)
    assert (mean, low, high) == interval(values)
    assert low < mean == 0.5 < high
    assert 0.2 < high - low < 0.35


def test_rows_tell_successes_gap_and_costs_apart():
    records = [run(Perfect(FEW), case)[0] for case in FEW[:3]]
    records += [replace(run(Perfect(FEW, lambda case: case.image), case)[0], method="idle") for case in FEW[:3]]
    good, idle = rows(records)
    assert (good["method"], idle["method"]) == ("fmtt-map-1", "idle")
    assert good["success_3"][0] == 1.0
    assert good["gap"][0] == 0.0
    assert idle["gap"][0] == 1.0
    assert good["kinds"]["time"]["success_3"] == 1.0
    assert table([good, idle]).count("\n") == 3
    assert all(name in table([good]) for name in COLUMNS)
    assert "| time |" in kinds_table([good])
    assert budgets_table([good, idle]).splitlines()[2:] == [
        f"| {name} | {100 * row['success_3'][0]:.0f} / {row['seconds']:.1f} |"
        for name, row in (("fmtt-map-1", good), ("idle", idle))
    ]
    more, less = good | {"budget": 400}, idle | {"budget": 25}
    assert budgets_table([good, more, less]).splitlines()[0] == "| right, % / seconds | 25 NFE | 100 NFE | 400 NFE |"
    assert budgets_table([good, more, less]).splitlines()[2].startswith("| fmtt-map-1 |  | 100 /")


# The run and the command line ---


def test_a_run_keeps_its_records_and_goes_on_from_them(tmp_path):
    arms = [("best-of-n", 25), ("fmtt-map-1", 25)]
    bench = Bench(Perfect(FEW), tmp_path, oracle=True, swap=None, keep=False)
    assert len(list(bench.run(bench.left(FEW[:2], arms)))) == 4
    again = Bench(Perfect(FEW), tmp_path, oracle=True, swap=None, keep=True)
    assert again.records == merged(bench.records, ())
    assert again.left(FEW[:3], arms) == [(FEW[2], arms)]
    assert [record.case for record in again.run(again.left(FEW[:3], arms))] == [2, 2]
    assert [(r.method, r.case) for r in again.of(FEW[1:2], arms)] == [("best-of-n", 1), ("fmtt-map-1", 1)]
    assert len(list(again.pictures.rglob("*.png"))) == 6
    assert not Bench(Perfect(FEW), tmp_path, oracle=True, swap=None, keep=False).records
    assert not list(again.pictures.rglob("*.png"))


def test_pictures_are_read_again_by_a_judge_that_has_changed(tmp_path, monkeypatch):
    bench = Bench(Perfect(FEW), tmp_path, oracle=True, swap=None, keep=False)
    (was,) = bench.run([(FEW[0], [("best-of-n", 25)])])
    bench.records.append(elsewhere := replace(was, case=1))
    bench.reread(TUNE)
    assert bench.records == [was, elsewhere]
    misread = {"success_3": False, "success_10": True, "minutes_off": 9.0, "moved": ("rim",)}
    monkeypatch.setattr(clockbench, "verdict", lambda case, image, refused: misread)
    bench.reread(TUNE)
    again = Bench(Perfect(FEW), tmp_path, oracle=True, swap=None, keep=True)
    assert again.records == bench.records == [replace(was, **misread), elsewhere]


def test_the_command_prints_tables_and_writes_json_plots_and_sheets(tmp_path, monkeypatch, capsys):
    known = cases(TEST, 2)
    monkeypatch.setattr(clockbench.Editor, "load", lambda name: Perfect(known))
    monkeypatch.setitem(clockbench.QUICK, "judge", 2)
    found = tmp_path / "found.json"
    asked = ["--quick", "--cases", "2", "--oracle-plan", "--work", str(tmp_path / "work"), "--json", str(found)]
    assert main([*asked, "--methods", "best-of-n", "fmtt-map-1", "--plots", str(tmp_path / "plots")]) == 0
    written, printed = json.loads(found.read_text()), capsys.readouterr().out
    assert (written["split"], written["plan"], len(written["records"])) == ("test", "oracle", 4)
    assert set(written["judge"]) == {"clean", "blur 0.8", "blur 1.2"}
    assert "| best-of-n | 100 | 2 | 100 (100 to 100)" in printed
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"clockbench.png", "clockbench-kinds.png", "cases-fmtt-map-1.jpg", "cases.jpg"} <= names
    with Image.open(tmp_path / "plots" / "cases-best-of-n.jpg") as drawn:
        assert drawn.width > 500
        assert file_bears_mark(drawn)


def test_sessions_share_a_run_by_a_file_of_records(tmp_path, monkeypatch, capsys):
    known = cases(TEST, 2)
    monkeypatch.setattr(clockbench.Editor, "load", lambda name: Perfect(known))
    monkeypatch.setitem(clockbench.QUICK, "judge", 2)
    shared = tmp_path / "records.jsonl.gz"

    def asked(work, *more):
        return ["--quick", "--cases", "2", "--work", str(tmp_path / work), "--records", str(shared), *more]

    assert main(asked("first", "--methods", "best-of-n")) == 0
    assert [record.key for record in read_records(shared)] == [("best-of-n", 100, 0), ("best-of-n", 100, 1)]
    capsys.readouterr()
    plots = tmp_path / "plots"
    assert main(asked("second", "--methods", "best-of-n", "fmtt-map-1", "--plots", str(plots))) == 0
    printed, found = capsys.readouterr().out, read_records(shared)
    assert [record.method for record in found] == ["best-of-n"] * 2 + ["fmtt-map-1"] * 2
    assert f"4 of the edits: {found[0].made}." in printed
    assert found[0].made.startswith(f"{date.today()}, float32, everything whole, 3 threads, weights ")
    assert len(list((tmp_path / "second" / "pictures").rglob("*.png"))) == 2
    assert {path.name for path in plots.glob("*.jpg")} == {"cases.jpg", "cases-fmtt-map-1.jpg"}


def test_a_file_of_records_takes_no_edits_that_differ_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clockbench.Editor, "load", lambda name: Perfect([]))
    shared = tmp_path / "records.jsonl"
    assert main(["--records", str(shared), "--oracle-plan", "--work", str(tmp_path)]) == 2
    assert "leave out --tune, --oracle-plan" in capsys.readouterr().err
    shared.write_text('{"method": "best-of-n"}\n')
    assert main(["--records", str(shared), "--work", str(tmp_path)]) == 2
    assert "holds no records of ClockBench" in capsys.readouterr().err


def test_readme_and_the_whole_tables_say_what_the_records_of_all_edits_do():
    """Every method on the same 200 edits at 200 NFE."""
    known, told = read_records(ROOT / "benchmarks" / "clockbench.jsonl.gz"), (ROOT / "README.md").read_text()
    whole = (ROOT / "benchmarks" / "CLOCKBENCH.md").read_text()
    found = rows(record for record in known if record.budget == 200)
    assert {row["method"] for row in found} == set(presets.presets())
    assert {(row["cases"], *(kind["cases"] for kind in row["kinds"].values())) for row in found} == {
        (200, 10, 10, 10, 10, 20, 30, 10, 10, 10, 10, 50, 20)
    }
    for row in found:
        right = "{:.0f} % ({:.0f} to {:.0f})".format(*(100 * value for value in row["success_3"]))
        line = f"| {right} | {row['psnr_changes'][0]:.1f} dB | {row['moved'][0]:.2f} | "
        assert line in told, row["method"]
        assert "| " + " | ".join(show(row) for show in COLUMNS.values()) + " |" in whole, row["method"]
    fewer = [record for record in known if record.budget in (25, 50, 200)]
    fewer.sort(key=lambda record: (list(presets.presets()).index(record.method), record.budget))
    for line in kinds_table(rows(fewer)).splitlines() + failures_table(fewer).splitlines():
        assert line in whole
    for line in budgets_table(rows(fewer)).splitlines():
        assert line in told.replace("**fmtt-map-1**", "fmtt-map-1")


def test_failures_are_counted_and_paired_with_those_of_fmtt():
    record, _ = run(Perfect(FEW), FEW[0])
    right = replace(record, method="fmtt-map-1", kind="time", success_3=True, moved=("second_hand",))
    wrong = replace(right, method="reno", success_3=False, believed=True, moved=())
    other = [replace(right, case=99), replace(wrong, case=98, kind="rim", believed=None)]
    assert failures_table([right, wrong, *other]).splitlines()[2:] == [
        f"| fmtt-map-1 | {record.budget} | 2 | 2 | 0 | 0 | 0 | 2 |  |  |",
        f"| reno | {record.budget} | 0 | 0 | 2 | 1 | 1 | 0 | 0 | 1 |",
    ]


def test_of_two_records_of_an_edit_the_newer_one_stays_and_conditions_are_counted(tmp_path):
    record, _ = run(Perfect(FEW), FEW[0])
    old, new = record.kept("2026-11-30"), replace(record.kept("2026-12-01"), psnr=20.0)
    assert (old.ssim, old.made) == (pytest.approx(record.ssim, rel=1e-4), "2026-11-30")
    assert merged([old, replace(old, case=3)], [new]) == [new, replace(old, case=3)]
    assert conditions([new, old, replace(new, made="")]) == (
        "1 of the edits: conditions not recorded.\n1 of the edits: 2026-11-30.\n1 of the edits: 2026-12-01."
    )
    for name in ("records.jsonl", "records.jsonl.gz"):
        write_records(tmp_path / name, [old, new])
        assert read_records(tmp_path / name) == [old, new]
    assert not read_records(tmp_path / "none.jsonl")


def test_a_budget_without_settings_ends_with_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(clockbench.Editor, "load", lambda name: Perfect([]))
    assert main(["--budgets", "7", "--methods", "best-of-n"]) == 2
    assert "no settings for 7 NFE" in capsys.readouterr().err
    assert main(["--budgets", "25", "--methods", "best-of-n", "fmtt-map-4"]) == 2
    assert "fmtt-map-4 has no settings for 25 NFE" in capsys.readouterr().err


def test_a_method_leaves_out_budgets_that_it_has_no_settings_for():
    arms = clockbench._arms(["best-of-n", "fmtt-map-4"], [25, 50])
    assert arms == [("best-of-n", 25), ("best-of-n", 50), ("fmtt-map-4", 50)]


def test_kinds_are_those_of_the_world_without_refusals():
    assert set(KINDS) == set(clock_plans.KINDS) - {"refuse"}
