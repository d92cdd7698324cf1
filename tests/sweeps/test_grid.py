"""Which jobs a sweep has, and that composing many at once gives what Hydra gives each."""

from __future__ import annotations

import random

import pytest

from dl_lab import config as configs
from dl_lab.sweeps import families, grid, identity, lanes, plan
from dl_lab.types import ConfigError, UserError


@pytest.fixture(scope="module")
def composer():
    return configs.Composer()


def jobs(composer, overrides, spec=None, **flags):
    return grid.expand(composer.loader, overrides, flags, spec).jobs()


def test_grid_is_hydras_product_last_axis_fastest(composer):
    assert jobs(composer, ["seed=range(2)", "optimizer.lr=0.1,1e-2", "model=mlp"]) == [
        ["seed=0", "optimizer.lr=0.1"],
        ["seed=0", "optimizer.lr=0.01"],
        ["seed=1", "optimizer.lr=0.1"],
        ["seed=1", "optimizer.lr=0.01"],
    ]


def test_glob_and_choice(composer):
    assert ["optimizer=adamw"] in jobs(composer, ["optimizer=glob(a*)"])
    assert jobs(composer, ["seed=choice(3,5)"]) == [["seed=3"], ["seed=5"]]


def test_zip_list_exclude_where_on_the_command_line(composer):
    found = jobs(
        composer,
        ["seed=0,1"],
        zip=["optimizer.lr=0.1,0.2 trainer.batch_size=8,16"],
        list=["seed=9 optimizer.lr=3"],
        exclude=["seed=1 optimizer.lr=0.2"],
        where=["optimizer.lr=0.2", "seed=1"],
    )
    assert found == [
        ["seed=0", "optimizer.lr=0.2", "trainer.batch_size=16"],
        ["seed=1", "optimizer.lr=0.1", "trainer.batch_size=8"],
        ["seed=9", "optimizer.lr=3"],
    ]


def test_a_list_as_value_is_one_value(composer):
    assert jobs(composer, [], {"grid": {"model.hidden": [[8, 8], [16]]}}) == [
        ["model.hidden=[8,8]"],
        ["model.hidden=[16]"],
    ]


@pytest.mark.parametrize(
    ("overrides", "spec", "flags", "message"),
    [
        (["seed=0"], None, {}, "no job"),
        ([], {"gird": {}}, {}, "no part 'gird'"),
        ([], {"grid": {"seed": 3}}, {}, "not a list"),
        ([], None, {"zip": ["seed=1,2 optimizer.lr=1,2,3"]}, "equally many"),
        (["seed=1,2"], None, {"exclude": ["seed=1", "seed=2"]}, "no job"),
        (["seed=1,1"], None, {}, "twice"),
        (["seed=[1,"], None, {}, "not an override"),
    ],
)
def test_what_cannot_be_a_sweep_is_one_sentence(composer, overrides, spec, flags, message):
    with pytest.raises(ConfigError, match=message):
        jobs(composer, overrides, spec, **flags)


GRIDS = [
    ["experiment=octmnist_cnn", "dataset=octmnist,mnist", "optimizer.lr=0.1,0.01,1e-3,1", "seed=range(4)"],
    ["model=mlp,linear", "optimizer=adam,sgd", "seed=0,1,2", "trainer.max_epochs=1,2"],
    ["model.activation=relu,tanh", "model.dropout=0,0.5", "scheduler=none,cosine", "trainer.max_epochs=3,4"],
    ["deterministic=true,false", "learner.clip_norm=null,1.0", "trainer.monitor=val/loss,val/accuracy"],
    ["paths.data_dir=/a,/b", "dataset=octmnist", "threads=1,2", "+reference.x=1,2"],
]


@pytest.mark.parametrize("overrides", GRIDS)
def test_composing_at_once_equals_hydra_for_each(composer, overrides):
    found = grid.expand(composer.loader, overrides, {}, None)
    words = [[*found.fixed, *job] for job in found.jobs()]
    random.Random(0).shuffle(words)
    for job, composed in zip(words, families.compose_all(composer.compose, composer.group_names(), words), strict=True):
        alone = composer.compose(job)
        assert composed.config == alone.config
        assert str(composed.config) == str(alone.config), "1 and 1.0 and True are not the same"
        assert composed.choices == alone.choices


def test_identity_ignores_where_and_keeps_what(composer):
    def id_of(*overrides, code="a", data="b"):
        return identity.job_id(composer.compose(overrides).config, code, data)

    same = ["trainer.device=cpu", "threads=1", "paths.output_dir=/x", "dataset.workers=9", "trainer.log_steps=1"]
    same += ["callbacks.progress=null", "lanes=3", "logger=none", "trainer.checkpoint_seconds=0", "id=X"]
    assert {id_of(word) for word in same} == {id_of()}
    other = ["seed=1", "optimizer.lr=0.5", "model.hidden=[8]", "trainer.max_epochs=3", "dataset.split_seed=1"]
    other = [word if word != "dataset.split_seed=1" else "+dataset.split_seed=1" for word in other]
    ids = [id_of(word) for word in other] + [id_of(code="c"), id_of(data="d"), id_of()]
    assert len(set(ids)) == len(ids)


def test_lanes_are_laid_out_by_gpu_or_core(monkeypatch, tmp_path):
    monkeypatch.setattr(lanes, "visible_gpus", list)
    monkeypatch.setattr(lanes.os, "sched_getaffinity", lambda _: set(range(8)))
    assert lanes.plan_layout("auto", "auto", None) == lanes.Layout(("",), 8, 1)
    assert lanes.plan_layout(2, "auto", None) == lanes.Layout(("",), 2, 4)
    monkeypatch.setattr(lanes, "visible_gpus", lambda: ["0", "1"])
    assert lanes.plan_layout("auto", "auto", None) == lanes.Layout(("0", "1"), 1, 4, may_grow=True)
    assert lanes.plan_layout(6, "auto", 1) == lanes.Layout(("0", "1"), 3, 1)
    assert lanes.plan_layout("auto", "cpu", None).devices == ("",)
    with pytest.raises(UserError, match="neither auto nor a number"):
        lanes.plan_layout("many", "auto", None)


def test_gpus_are_found_without_torch(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert lanes.visible_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert lanes.visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A'\necho 'GPU 1: B'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert lanes.visible_gpus() == ["0", "1"]


def test_an_edited_plan_is_refused_in_words(tmp_path):
    (tmp_path / "sweep.yaml").write_text("jobs: [")
    with pytest.raises(UserError, match="not a readable plan"):
        plan.read_plan(tmp_path)


def work(job, orders, send):
    """A job of the schedule tests: what it is told to do."""
    import time

    if orders.get("memory"):
        send({"event": "memory", "peak_bytes": 1, "total_bytes": 4})
    time.sleep(orders.get("seconds", 0))
    if orders.get("needs_all") and not orders["solo"]:
        return lanes.Schedule.OUT_OF_MEMORY
    return orders.get("status", 0)


def run_schedule(layout, orders):
    events = []
    schedule = lanes.Schedule(layout, lambda _: None, work, events.append)
    schedule.open()
    try:
        return schedule.run(list(orders), orders), events
    finally:
        schedule.close()


def test_lanes_grow_with_measured_memory_and_full_ones_run_alone():
    orders = {
        0: {"memory": True, "seconds": 0.5},
        1: {"seconds": 1},
        2: {"needs_all": True, "seconds": 0.2},
        3: {"seconds": 0.2},
    }
    statuses, events = run_schedule(lanes.Layout(("0",), 1, 1, may_grow=True), orders)
    assert statuses == dict.fromkeys(orders, 0)
    started = [event["job"] for event in events if event["event"] == "start"]
    assert started.count(2) == 2, "the job that did not fit beside others was not tried alone"
    assert [event["job"] for event in events if event["event"] == "alone"] == [2]


prepared = []  # in each process of the test below


def prepare(orders):
    import time

    prepared.append(orders.get("what"))
    time.sleep(orders.get("seconds", 0))


def tell(job, orders, send):
    import os

    send({"event": "told", "job": job, "pid": os.getpid(), "prepared": prepared})
    return orders.get("status", 0)


@pytest.mark.parametrize("seconds", [0, 5 * lanes.FORK_SECONDS])
def test_who_was_asked_before_the_jobs_is_one_of_them_unless_it_lacks_much(seconds):
    """A question's process takes jobs too, after it has prepared what came since; not where that takes long."""
    told = []
    schedule = lanes.Schedule(lanes.Layout(("",), 2, 1), prepare, tell, told.append)
    schedule.open()
    try:
        answers = schedule.ask([{}, {}], {"what": "data", "seconds": seconds})
        assert [answer["prepared"] for answer in answers] == [[None], [None]]
        assert schedule.run([0, 1, 2], {job: {} for job in range(3)}) == dict.fromkeys(range(3), 0)
    finally:
        schedule.close()
    jobs = [event for event in told if event["event"] == "told"]
    assert [event["prepared"] for event in jobs] == [[None, "data"]] * 3
    same = {event["pid"] for event in jobs} & {answer["pid"] for answer in answers}
    assert bool(same) == (seconds == 0)


def asked_and_busy():
    """A schedule whose question is answered while its server still prepares: it has not seen that process end."""
    schedule = lanes.Schedule(lanes.Layout(("",), 1, 1), prepare, tell, lambda event: None)
    schedule.open()
    schedule.ask([{}], {"what": "data", "seconds": 30})
    return schedule


def test_a_server_killed_while_it_prepares_is_replaced():
    schedule = asked_and_busy()
    try:
        schedule.servers[0].kill()
        assert schedule.run([0, 1], {0: {}, 1: {}}) == {0: 0, 1: 0}
    finally:
        schedule.close()


def test_ctrl_c_while_a_server_prepares_ends_at_once():
    import os
    import signal
    import threading
    import time

    schedule = asked_and_busy()
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        assert schedule.run([0, 1], {0: {}, 1: {}}) == {}
        assert time.monotonic() - began < 10
    finally:
        schedule.close()


def test_a_question_whose_process_dies_is_not_waited_for():
    schedule = lanes.Schedule(lanes.Layout(("",), 1, 1), lambda _: None, lambda *_: 1 // 0)
    schedule.open()
    try:
        assert [answer["event"] for answer in schedule.ask([{}], {})] == ["exit"]
    finally:
        schedule.close()


def held_jobs(orders, act=lambda schedule: None, **settings):
    """Statuses and events of two lanes; act: called half a second after the start, when further jobs are held."""
    import threading

    events = []
    schedule = lanes.Schedule(lanes.Layout(("",), 2, 1), lambda _: None, work, events.append, **settings)
    schedule.open()
    timer = threading.Timer(0.5, act, [schedule])
    timer.start()
    try:
        return schedule.run(list(orders), orders), events
    finally:
        timer.join()
        schedule.close()


def begun(events):
    return [event["job"] for event in events if event["event"] == "start"]


def test_held_jobs_do_not_begin_after_one_that_failed_where_that_stops_the_sweep():
    orders = {0: {"seconds": 0.2, "status": 1}, 1: {"seconds": 0.4}, **{n: {} for n in range(2, 9)}}
    statuses, events = held_jobs(orders, stop_on_failure=True)
    assert statuses == {0: 1, 1: 0}
    assert begun(events) == [0, 1]
    statuses, events = held_jobs(orders)
    assert statuses == {0: 1, **dict.fromkeys(range(1, 9), 0)}
    assert begun(events) == list(range(9))


def test_held_jobs_do_not_begin_after_ctrl_c():
    import os
    import signal

    orders = {0: {"seconds": 20}, 1: {"seconds": 20}, 2: {}, 3: {}, 4: {}}
    statuses, events = held_jobs(orders, lambda schedule: os.kill(os.getpid(), signal.SIGINT))
    assert statuses == dict.fromkeys((0, 1), -signal.SIGTERM)
    assert begun(events) == [0, 1]


def test_held_jobs_of_a_killed_server_have_lost_no_try():
    orders = {n: {"seconds": 1} for n in range(4)}
    statuses, events = held_jobs(orders, lambda schedule: schedule.servers[0].kill())
    assert statuses == dict.fromkeys(range(4), 0)
    assert sorted(event["job"] for event in events if event["event"] == "lost") == [0, 1]
    assert begun(events) == [0, 1, 0, 1, 2, 3]


def clock(job, orders, send):
    import time

    send({"event": "clock", "job": job, "at": time.monotonic()})
    time.sleep(0.2)
    return 0


def test_a_lane_gets_its_next_job_while_the_sweep_is_busy():
    import time

    began = []

    def observe(event):
        if event["event"] == "clock":
            began.append(event["at"])
            time.sleep(2)  # as where results are read from a slow disk

    schedule = lanes.Schedule(lanes.Layout(("",), 1, 1), lambda _: None, clock, observe)
    schedule.open()
    try:
        assert schedule.run([0, 1], {0: {}, 1: {}}) == {0: 0, 1: 0}
    finally:
        schedule.close()
    assert began[1] - began[0] < 1


def test_statuses_and_order_over_two_lanes():
    statuses, events = run_schedule(
        lanes.Layout(("",), 2, 1), {n: {"status": n % 3, "seconds": 0.05} for n in range(9)}
    )
    assert statuses == {n: n % 3 for n in range(9)}
    assert [event["job"] for event in events if event["event"] == "start"] == list(range(9))
    assert {event["lane"] for event in events if event["event"] == "start"} == {0, 1}
