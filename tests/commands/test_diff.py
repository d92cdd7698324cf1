"""dl-lab diff: only what differs, part by part."""

from __future__ import annotations

import json
import shutil


def changed(path, **facts) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_only_the_settings_explain_it(command, make_run):
    one = make_run(lr=0.1, metrics={"test/accuracy": 0.5})
    other = make_run(lr=0.2, metrics={"test/accuracy": 0.625})
    status, out, _ = command("diff", str(one), str(other))
    assert status == 0
    assert "of what they rest on, only the settings do: optimizer.lr." in out
    assert "+0.125" in out
    assert "The same: code, packages, hardware, data." in out
    assert "seed" not in out


def test_every_part(command, make_run):
    one = make_run()
    other = shutil.copytree(one, one.with_name("10-99_000000ff"))
    assert "The results are the same, and so is all else." in command("diff", str(one), str(other))[1]
    packages = {"torch": "2.11", "numpy": "2.3"}
    changed(one / "env.json", packages=packages)
    changed(other / "env.json", packages={**packages, "torch": "1.0"}, cpu="another", code="c0de")
    (other / "diff.patch").write_text("diff --git a/x.py b/x.py\n+new\n")
    summary = json.loads((one / "summary.json").read_text())
    changed(other / "summary.json", dataset={**summary["dataset"], "fingerprint": "new"})
    found = json.loads(command("diff", str(one), str(other), "--json")[1])
    assert found["packages"] == {"torch": [packages["torch"], "1.0"]}
    assert found["hardware"]["cpu"][1] == "another"
    assert found["data"] == {"fingerprint": [None, "new"]}
    assert set(found["code"]) == {"fingerprint", "uncommitted changes"}
    assert found["settings"] == found["results"] == {}
    out = command("diff", str(one), str(other))[1]
    assert "The results are the same, although code, packages, hardware and data differ." in out
    assert "2 lines of their own (in x.py)" in out


def test_the_first_epoch_that_differs(command, make_run):
    one, other = make_run(), make_run()
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join([*lines[:3], lines[3].replace('"step": 40', '"step": 41'), lines[4]]))
    found = json.loads(command("diff", str(one), str(other), "--json")[1])
    assert found["results"]["first different epoch"] == [4, 4]
    assert "nothing that was recorded does" in command("diff", str(one), str(other))[1]


def test_a_half_written_run_and_an_unknown_one(command, make_run):
    one, other = make_run(), make_run()
    for name in ("summary.json", "env.json", "config.yaml"):
        (other / name).write_text("{")
    status, out, _ = command("diff", str(one), str(other))
    assert status == 0
    assert "settings" in out
    status, _, error = command("diff", str(one), "nothing")
    assert (status, error.count("\n")) == (1, 1)


def test_without_torch(cost, make_run):
    seconds, modules = cost("diff", str(make_run(lr=0.1)), str(make_run(lr=0.2)))
    assert seconds < 0.5
    assert not {"torch", "hydra", "numpy"} & modules


def test_an_empty_folder_is_no_run(command, make_run, tmp_path):
    (tmp_path / "empty").mkdir()
    make_run()
    for verb in (("diff", "last", "empty"), ("verify", "empty"), ("export", "empty")):
        assert command(*verb)[::2] == (1, "dl-lab: empty is not a run's folder: it has no status.json.\n")
