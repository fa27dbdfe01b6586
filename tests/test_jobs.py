"""One worker, one queue: order, bounds, stopping, short calls between steps, failures that leave it alive."""

import threading
import time

import pytest

from editor.jobs import Jobs
from editor.types import EditError, EditRequest, SearchSettings
from tests.fakes import FakeEditor, clock_like


@pytest.fixture
def start():
    opened = []

    def make(pause=0.0, keep=lambda job: job.id, **options):
        opened.append(Jobs(FakeEditor(pause), keep, **options))
        return opened[-1]

    yield make
    for jobs in opened:
        jobs.close()


def request(instruction="make it dark", **settings):
    return EditRequest(image=clock_like(), instruction=instruction, settings=SearchSettings(**settings))


def end(jobs, job):
    *_, last = jobs.follow(job)
    return last


def test_a_job_runs_to_its_end_unwatched_and_is_kept(start):
    kept = threading.Event()
    jobs = start(keep=lambda job: kept.set() or "id of the edit")
    job = jobs.submit(request(), "ann")
    assert kept.wait(5)
    assert end(jobs, job).state == "done"
    assert job.update.done
    assert job.kept == "id of the edit"
    assert jobs.latest("ann") is job


def test_leaving_and_coming_back_finds_the_run(start):
    jobs = start(pause=0.02)
    job = jobs.submit(request(steps=10), "ann")
    watching = jobs.follow(job)
    while next(watching).update is None:
        pass
    watching.close()
    assert jobs.latest("ann") is job
    assert jobs.latest("bob") is None
    later = jobs.submit(request(), "ann")
    assert jobs.latest("ann") is job, "what runs can be stopped where it is seen"
    assert len(end(jobs, job).update.history) == 11
    end(jobs, later)
    assert jobs.latest("ann") is later


def test_a_run_without_a_plan_is_found_stopped_and_told_of_while_it_is_planned(start):
    jobs, gate = start(), threading.Event()
    made = FakeEditor().plan(None, "make it dark")

    def plan():
        assert gate.wait(5)
        return made

    job, stopped = (jobs.submit(request(), "ann", plan) for _ in range(2))
    assert (job.state, jobs.latest("ann"), jobs.is_on(job.id)) == ("planning", stopped, True)
    jobs.stop(stopped)
    assert "before it began" in end(jobs, stopped).error
    gate.set()
    assert end(jobs, job).update.done
    assert job.request.plan is made
    assert stopped.state == "failed"
    refused = jobs.submit(request(), "ann", lambda: FakeEditor().plan(None, "a dog"))
    assert "clocks only" in end(jobs, refused).error
    broken = jobs.submit(request(), "ann", lambda: 1 / 0)
    assert "report the id" in end(jobs, broken).error


def test_closing_ends_a_run_that_is_still_to_be_planned(start):
    jobs = start(pause=0.02)
    running = jobs.submit(request(steps=4000), "ann")
    assert next(j for j in jobs.follow(running) if j.update)
    job = jobs.submit(request(), "ann", lambda: FakeEditor().plan(None, "make it dark"))
    jobs.close()
    assert job.over


def test_who_follows_a_job_that_does_not_move_can_leave(start, monkeypatch):
    monkeypatch.setattr("editor.jobs.PULSE", 0.01)
    jobs = start(pause=5.0)
    jobs.submit(request(), "ann")
    waiting = jobs.submit(request(), "ann")
    watching = jobs.follow(waiting)
    assert [next(watching).version for _ in range(4)][1:] == 3 * [waiting.version]
    watching.close()


def test_stop_keeps_the_best_so_far_and_frees_the_worker(start):
    jobs = start(pause=0.02)
    job = jobs.submit(request(steps=500), "ann")
    for seen in jobs.follow(job):
        if seen.update and seen.update.step >= 2:
            break
    began = time.monotonic()
    jobs.stop(job)
    jobs.stop(job)
    assert end(jobs, job).update.stopped
    assert time.monotonic() - began < 1
    assert job.update.best is not None
    assert end(jobs, jobs.submit(request(), "ann")).state == "done"


def test_a_waiting_job_knows_its_place_and_can_be_stopped(start):
    jobs = start(pause=0.02)
    jobs.learn(SearchSettings(), 10.0)
    first, second, third = (jobs.submit(request(steps=200), "ann") for _ in range(3))
    assert next(job for job in jobs.follow(first) if job.state == "running")
    assert [jobs.place(job) for job in (first, second, third)] == [0, 1, 2]
    assert jobs.wait(third) > jobs.wait(second) > 0
    jobs.stop(second)
    assert "before it began" in end(jobs, second).error
    assert jobs.place(third) == 1
    jobs.stop(first)
    assert next(job for job in jobs.follow(third) if job.state == "running")
    jobs.stop(third)


def test_the_queue_is_bounded(start):
    jobs = start(pause=0.05, waiting=2)
    first = jobs.submit(request(steps=100), "ann")
    assert next(job for job in jobs.follow(first) if job.state == "running")
    for _ in range(2):
        jobs.submit(request(), "ann")
    with pytest.raises(EditError, match="full with 2 runs"):
        jobs.submit(request(), "bob")
    jobs.stop(first)


def test_short_calls_are_done_between_steps_by_the_same_thread(start):
    jobs = start(pause=0.02)
    idle = jobs.call(threading.current_thread)
    job = jobs.submit(request(steps=200), "ann")
    assert next(j for j in jobs.follow(job) if j.update)
    assert jobs.call(threading.current_thread) is idle is not threading.current_thread()
    assert not job.over
    with pytest.raises(EditError, match="clocks only"):
        jobs.call(lambda: FakeEditor().plan(None, "a dog"))
    jobs.stop(job)


def test_failures_have_a_sentence_and_the_next_run_works(start, caplog):
    jobs = start()
    refused, broken = (end(jobs, jobs.submit(request(text), "ann")) for text in ("a dog", "a bug"))
    assert refused.error.startswith("The studio knows clocks only")
    assert "secret" not in broken.error
    number = broken.error.split("error ")[1][:8]
    assert number in caplog.text
    assert "secret detail" in caplog.text
    assert end(jobs, jobs.submit(request(), "ann")).state == "done"


def test_jobs_belong_to_their_owner_and_old_ones_are_forgotten(start):
    jobs = start(remembered=2)
    done = [end(jobs, jobs.submit(request(), "ann")) for _ in range(4)]
    assert jobs.get(done[3].id, "ann") is done[3]
    for job_id, owner in ((done[3].id, "bob"), (done[0].id, "ann"), ("nonsense", "ann")):
        with pytest.raises(EditError, match="no longer known"):
            jobs.get(job_id, owner)


def test_what_is_over_is_forgotten_when_its_owner_asks(start):
    jobs = start(pause=0.02)
    mine, theirs = (end(jobs, jobs.submit(request(), owner)) for owner in ("ann", "bob"))
    running = jobs.submit(request(steps=200), "ann")
    jobs.forget("ann")
    with pytest.raises(EditError, match="no longer known"):
        jobs.get(mine.id, "ann")
    assert jobs.get(theirs.id, "bob") is theirs
    assert jobs.latest("ann") is running
    jobs.stop(running)


def test_the_pace_of_past_runs_gives_the_expected_seconds(start):
    jobs = start(pause=0.005)
    assert jobs.expected(SearchSettings()) is None
    jobs.learn(SearchSettings(particles=4, steps=4), 8.0)
    assert jobs.expected(SearchSettings(particles=8, steps=4)) == pytest.approx(16.0)


def test_closing_stops_the_run_at_hand(start):
    jobs = start(pause=0.02)
    job = jobs.submit(request(steps=4000), "ann")
    waiting = jobs.submit(request(), "ann")
    assert next(j for j in jobs.follow(job) if j.update)
    jobs.close()
    assert job.update.stopped
    assert end(jobs, waiting).state == "failed"
