"""Which jobs a sweep has; composing many at once gives what Hydra gives each."""

from __future__ import annotations

import random

import pytest

from dl_lab import configs
from dl_lab.configs import identity
from dl_lab.sweeps import families, grid, plan_file
from dl_lab.types import ConfigError, UserError


@pytest.fixture(scope="module")
def composer():
    return configs.Composer()


def jobs(composer, overrides, spec=None, **flags):
    return grid.expand(composer.loader, overrides, flags, spec).jobs()


def test_a_grid_is_hydras_product_and_its_last_axis_varies_fastest(composer):
    assert jobs(composer, ["seed=range(2)", "optimizer.lr=0.1,1e-2", "model=mlp"]) == [
        ["seed=0", "optimizer.lr=0.1"],
        ["seed=0", "optimizer.lr=0.01"],
        ["seed=1", "optimizer.lr=0.1"],
        ["seed=1", "optimizer.lr=0.01"],
    ]


def test_glob_and_choice_are_axes(composer):
    assert ["optimizer=adamw"] in jobs(composer, ["optimizer=glob(a*)"])
    assert jobs(composer, ["seed=choice(3,5)"]) == [["seed=3"], ["seed=5"]]


def test_zip_list_exclude_and_where_work_on_the_command_line(composer):
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
        ([], {"gird": {}}, {}, "no part 'gird'"),
        ([], {"grid": {"seed": [0, 1]}, "replicates": "seed"}, {}, "sweep.replicates: 'seed' is not a list of keys"),
        ([], {"grid": {"seed": 3}}, {}, "not a list"),
        ([], None, {"zip": ["seed=1,2 optimizer.lr=1,2,3"]}, "equally many"),
        (["seed=1,2"], None, {"exclude": ["seed=1", "seed=2"]}, "no job"),
        (["seed=1,2", "seed=3,4"], None, {}, "given twice"),
        (["seed=1,2", "seed=3"], None, {}, "given twice"),
        (["seed=1,2"], None, {"zip": ["seed=1,2 optimizer.lr=1,2"]}, "given twice"),
        (["seed=range(1,10,0)"], None, {}, "step of a range must not be 0"),
        (["seed=range(0.0,1.0,0.0)"], None, {}, "step of a range must not be 0"),
        (["seed=range(3,1)"], None, {}, "has no values"),
        (["seed=range(1000000000)"], None, {}, "fewer than 1,000,000 values"),
        (["seed=1,2"], None, {"exclude": ["sed=1"]}, "sets no sed.*Did you mean seed"),
        (["seed=1,2"], None, {"exclude": ["seed=3"]}, "fits no job of this sweep; seed is 1, 2"),
        (["seed=1,2"], None, {"where": ["seed='1'"]}, "fits no job"),
        (["seed=1,2"], None, {"list": ["seed=1,2"]}, "one entry has one"),
        (["seed=1,2"], None, {"list": ['optimizer.lr="1']}, 'closing " is missing'),
        ([], {"zip": {"seed": 3}}, {}, "sweep.zip.seed: 3 is not a list"),
        ([], {"zip": 3}, {}, "sweep.zip: 3 is not a mapping"),
        ([], {"list": {"seed": 3}}, {}, "sweep.list: a list of jobs is needed"),
        ([], {"exclude": [3]}, {}, r"sweep.exclude\[0\]: 3 is not a mapping"),
        ([], {"grid": {"seed": []}}, {}, "list of values is empty"),
        ([], {"grid": {"optimizer": {"lr": [1]}}}, {}, "optimizer.lr: "),
        ([], {"grid": {"seed": [1]}, "zip": {"seed": [1]}}, {}, "sweep.zip.seed"),
        (["seed=[1,"], None, {}, "not an override"),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_sentence(composer, overrides, spec, flags, message):
    with pytest.raises(ConfigError, match=message):
        jobs(composer, overrides, spec, **flags)


GRIDS = [
    ["experiment=octmnist_cnn", "dataset=octmnist,mnist", "optimizer.lr=0.1,0.01,1e-3,1", "seed=range(4)"],
    ["model=mlp,linear", "optimizer=adam,sgd", "seed=0,1,2", "trainer.max_epochs=1,2"],
    ["model.activation=relu,tanh", "model.dropout=0,0.5", "scheduler=none,cosine", "trainer.max_epochs=3,4"],
    ["deterministic=true,false", "learner.clip_norm=null,1.0", "trainer.monitor=val/loss,val/accuracy"],
    ["paths.data_dir=/a,/b", "dataset=octmnist", "threads=1,2", "+reference.x=1,2"],
]


SAMPLE = 6  # jobs that Hydra composes alone: 0.1 s each


@pytest.mark.parametrize("overrides", GRIDS)
def test_composing_all_jobs_at_once_gives_what_hydra_gives_each(composer, overrides):
    found = grid.expand(composer.loader, overrides, {}, None)
    words = [[*found.fixed, *job] for job in found.jobs()]
    random.Random(0).shuffle(words)
    all_composed = families.compose_all(composer.compose, composer.group_names(), words)
    assert len(all_composed) == len(words)
    for job, composed in random.Random(1).sample(list(zip(words, all_composed, strict=True)), SAMPLE):
        alone = composer.compose(job)
        assert composed.config == alone.config
        assert str(composed.config) == str(alone.config), "1 and 1.0 and True are not the same"
        assert composed.choices == alone.choices


def test_the_id_of_a_job_depends_on_what_it_computes_and_not_on_where(composer):
    def id_of(*overrides, code="a", data="b"):
        return identity.job_id(composer.compose(overrides).config, code, data)

    same = [
        "trainer.device=cpu",
        "threads=1",
        "paths.output_dir=/x",
        "dataset.loading.workers=9",
        "trainer.log_steps=1",
    ]
    same += ["callbacks.progress=null", "lanes=3", "logger=none", "trainer.checkpoint_seconds=0", "id=X"]
    assert {id_of(word) for word in same} == {id_of()}
    other = ["seed=1", "optimizer.lr=0.5", "model.hidden=[8]", "trainer.max_epochs=3", "dataset.held_out.seed=1"]
    ids = [id_of(word) for word in other] + [id_of(code="c"), id_of(data="d"), id_of()]
    assert len(set(ids)) == len(ids)


def test_a_damaged_plan_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "sweep.yaml").write_text("jobs: [")
    with pytest.raises(UserError, match="not a readable plan"):
        plan_file.read_plan(tmp_path)
