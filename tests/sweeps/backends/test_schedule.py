"""Lanes: which job starts when and where, also after failures, kills and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from dl_lab.sweeps.backends.layout import Layout
from dl_lab.sweeps.backends.protocol import (
    OUT_OF_MEMORY,
    CheckJobs,
    Exited,
    Lost,
    Memory,
    OutOfMemory,
    Prepare,
    Progress,
    RunJob,
    Started,
    Stopping,
    Wrong,
)
from dl_lab.sweeps.backends.schedule import Schedule

ONE_LANE = Layout(("",), 1, 1)
TWO_LANES = Layout(("",), 2, 1)


def job(number, **config):
    return RunJob(number, "", config, {}, [], {}, {}, 1)


def do_nothing(order):
    """Prepare nothing."""


def work(task, send):
    """Do what the config of the job says."""
    config = task.config
    if config.get("memory"):
        send(Memory(task.job, peak=1, total=4))
    time.sleep(config.get("seconds", 0))
    while not Path(config.get("until", os.devnull)).exists():
        time.sleep(0.01)
    if config.get("needs_all") and not task.solo:
        return OUT_OF_MEMORY
    return config.get("status", 0)


def run_schedule(layout, jobs, act=None, **settings):
    """Run jobs; return their statuses and the events.

    act: runs meanwhile; is called with the schedule and a function that waits for the n-th event of a kind.
    """
    events = []
    schedule = Schedule(layout, do_nothing, work, events.append, **settings)

    def wait_for(n, kind=Started):
        while len(jobs_of(events, kind)) < n:
            time.sleep(0.01)

    schedule.open()
    actor = threading.Thread(target=act, args=[schedule, wait_for], daemon=True) if act else None
    if actor:
        actor.start()
    try:
        return schedule.run(jobs), events
    finally:
        if actor:
            actor.join(timeout=60)
        schedule.close()


def jobs_of(events, kind):
    return [event.job for event in events if isinstance(event, kind)]


def test_jobs_start_in_order_over_two_lanes():
    jobs = [job(n, status=n % 3, seconds=0.05) for n in range(9)]
    statuses, events = run_schedule(TWO_LANES, jobs)
    assert statuses == {n: n % 3 for n in range(9)}
    assert jobs_of(events, Started) == list(range(9))
    assert {event.lane for event in events if isinstance(event, Started)} == {0, 1}


def test_lanes_grow_with_measured_memory_and_a_large_job_runs_alone():
    jobs = [
        job(0, memory=True, seconds=0.5),
        job(1, seconds=1),
        job(2, needs_all=True, seconds=0.2),
        job(3, seconds=0.2),
    ]
    statuses, events = run_schedule(Layout(("0",), 1, 1, may_grow=True), jobs)
    assert statuses == dict.fromkeys(range(4), 0)
    assert jobs_of(events, Started).count(2) == 2
    assert jobs_of(events, OutOfMemory) == [2]


def test_no_job_starts_after_a_failed_one_with_on_failure_stop(tmp_path):
    both_run, one_failed = tmp_path / "both_run", tmp_path / "one_failed"
    first = [job(0, until=str(both_run), status=1), job(1, until=str(one_failed))]
    jobs = [*first, *(job(n) for n in range(2, 9))]

    def let_the_first_fail(_, wait_for):
        wait_for(2)
        both_run.touch()
        wait_for(1, Exited)
        one_failed.touch()

    statuses, events = run_schedule(TWO_LANES, jobs, let_the_first_fail, stop_on_failure=True)
    assert statuses == {0: 1, 1: 0}
    assert jobs_of(events, Started) == [0, 1]
    statuses, events = run_schedule(TWO_LANES, jobs)
    assert statuses == {0: 1, **dict.fromkeys(range(1, 9), 0)}
    assert jobs_of(events, Started) == list(range(9))


def test_no_job_starts_after_ctrl_c():
    jobs = [job(0, seconds=20), job(1, seconds=20), job(2), job(3)]

    def interrupt(schedule, wait_for):
        wait_for(2)
        os.kill(os.getpid(), signal.SIGINT)

    statuses, events = run_schedule(TWO_LANES, jobs, interrupt)
    assert statuses == dict.fromkeys((0, 1), -signal.SIGTERM)
    assert jobs_of(events, Started) == [0, 1]
    assert Stopping() in events


def test_jobs_of_a_killed_server_start_again_and_waiting_jobs_lose_no_try(tmp_path):
    killed = tmp_path / "killed"
    jobs = [job(n, until=str(killed)) for n in range(4)]

    def kill(schedule, wait_for):
        wait_for(2)
        schedule.servers[0].kill()
        wait_for(3)  # only then: a job that is not yet dead must not end by itself
        killed.touch()

    statuses, events = run_schedule(TWO_LANES, jobs, kill)
    assert statuses == dict.fromkeys(range(4), 0)
    assert sorted(jobs_of(events, Lost)) == [0, 1]
    assert jobs_of(events, Started) == [0, 1, 0, 1, 2, 3]


def test_a_job_whose_server_is_killed_twice_fails():
    def kill_twice(schedule, wait_for):
        for n in (1, 2):
            wait_for(n)
            schedule.servers[0].kill()

    statuses, events = run_schedule(ONE_LANE, [job(0, seconds=30), job(1)], kill_twice)
    assert statuses == {0: -signal.SIGKILL, 1: 0}
    assert [event.again for event in events if isinstance(event, Lost)] == [True, False]


def test_a_lane_gets_its_next_job_before_the_sweep_shows_how_the_last_one_ended(tmp_path):
    second_began = tmp_path / "began"
    had_begun = []

    def observe(event):  # takes long, as where results are read from a slow disk
        if isinstance(event, Exited) and event.job == 0:
            end = time.monotonic() + 60
            while not second_began.exists() and time.monotonic() < end:
                time.sleep(0.01)
            had_begun.append(second_began.exists())

    def begin(task, send):
        if task.job == 1:
            second_began.touch()
        return 0

    schedule = Schedule(ONE_LANE, do_nothing, begin, observe)
    schedule.open()
    try:
        assert schedule.run([job(0), job(1)]) == {0: 0, 1: 0}
    finally:
        schedule.close()
    assert had_begun == [True]


prepared = []  # in each process of the tests below


def prepare(order):
    prepared.extend(order.targets)
    time.sleep(float(next(iter(order.modules), 0)))


def tell(task, send):
    """Answer a question with the process that answers, and what that process has prepared."""
    send(Wrong(task.job, os.getpid(), " ".join(prepared)))
    return 0


def tell_as_progress(task, send):
    """Report for a job its process, and how often that process has prepared."""
    if isinstance(task, CheckJobs):
        return tell(task, send)
    send(Progress(task.job, epoch=os.getpid(), max_epochs=len(prepared), done=0, total=1))
    return 0


def test_a_child_that_lacks_newly_loaded_data_is_replaced():
    events = []
    schedule = Schedule(TWO_LANES, prepare, tell_as_progress, events.append)
    schedule.open()
    try:
        schedule.prepare_servers(Prepare(targets=["before"]))
        answers = schedule.ask([CheckJobs(-1, []), CheckJobs(-2, [])], Prepare(targets=["data"]))
        assert [answer.message for answer in answers] == ["before", "before"]
        assert schedule.run([job(n) for n in range(4)]) == dict.fromkeys(range(4), 0)
    finally:
        schedule.close()
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.max_epochs for event in progress] == [2] * 4
    assert not {event.epoch for event in progress} & {answer.number for answer in answers}


def test_a_child_whose_job_was_short_takes_the_next_one():
    events = []
    schedule = Schedule(ONE_LANE, prepare, tell_as_progress, events.append)
    schedule.open()
    try:
        schedule.run([job(n) for n in range(3)])
    finally:
        schedule.close()
    assert len({event.epoch for event in events if isinstance(event, Progress)}) == 1


@pytest.fixture
def busy():
    """A schedule whose question is answered while its server still prepares."""
    schedule = Schedule(ONE_LANE, prepare, tell)
    schedule.open()
    schedule.ask([CheckJobs(-1, [])], Prepare(modules=["30"]))
    yield schedule
    schedule.close()


def test_a_server_that_is_killed_while_it_prepares_is_replaced(busy):
    busy.servers[0].kill()
    assert busy.run([job(0), job(1)]) == {0: 0, 1: 0}


def test_ctrl_c_while_a_server_prepares_does_not_wait_for_it(busy):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert busy.run([job(0), job(1)]) == {}


def test_a_question_whose_process_dies_is_answered_by_its_end():
    schedule = Schedule(ONE_LANE, do_nothing, lambda task, send: 1 // 0)
    schedule.open()
    try:
        assert schedule.ask([CheckJobs(-1, [])], Prepare()) == [Exited(-1, 1)]
    finally:
        schedule.close()
