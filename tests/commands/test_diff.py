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
    assert "and only the settings explain it: optimizer.lr." in out
    assert "+0.125" in out
    assert "The same: code, packages, hardware, data." in out
    assert "seed" not in out


def test_every_part_is_compared(command, make_run):
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


def test_a_file_that_one_run_did_not_need_is_no_difference(command, make_run):
    one = make_run()
    other = shutil.copytree(one, one.with_name("10-99_000000ff"))
    for folder, digest in ((one, "0" * 12), (other, "missing")):
        environment = json.loads((folder / "env.json").read_text())
        environment["data_files"] = {"official.tar.gz": digest, "copy.tar.xz": "1" * 12}
        (folder / "env.json").write_text(json.dumps(environment))
        summary = json.loads((folder / "summary.json").read_text())
        summary["dataset"] = {**(summary.get("dataset") or {}), "fingerprint": "one"}
        (folder / "summary.json").write_text(json.dumps(summary))
    assert json.loads(command("diff", str(one), str(other), "--json")[1])["data"] == {}
    summary = json.loads((other / "summary.json").read_text())
    summary["dataset"]["fingerprint"] = "another"
    (other / "summary.json").write_text(json.dumps(summary))
    found = json.loads(command("diff", str(one), str(other), "--json")[1])["data"]
    assert set(found) == {"fingerprint", "official.tar.gz"}


def test_the_first_different_epoch_is_named(command, make_run):
    one, other = make_run(), make_run()
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join([*lines[:3], lines[3].replace('"step": 40', '"step": 41'), lines[4]]))
    found = json.loads(command("diff", str(one), str(other), "--json")[1])
    assert found["results"]["first different epoch"] == [4, 4]
    assert "although nothing else that was recorded does" in command("diff", str(one), str(other))[1]


def test_a_half_written_run_and_an_unknown_run_are_answered(command, make_run):
    one, other = make_run(), make_run()
    for name in ("summary.json", "env.json", "config.yaml"):
        (other / name).write_text("{")
    status, out, _ = command("diff", str(one), str(other))
    assert status == 0
    assert "settings" in out
    status, _, error = command("diff", str(one), "nothing")
    assert (status, error.count("\n")) == (1, 1)


def test_without_torch(cost, make_run):
    spent = cost("diff", str(make_run(lr=0.1)), str(make_run(lr=0.2)))
    assert not {"torch", "hydra", "numpy"} & spent.modules
    assert len(spent.files) <= 2 * 12
    assert spent.processes == []


def test_an_empty_folder_is_no_run(command, make_run, tmp_path):
    (tmp_path / "empty").mkdir()
    make_run()
    for verb in (("diff", "last", "empty"), ("verify", "empty"), ("export", "empty")):
        assert command(*verb)[::2] == (1, "dl-lab: empty is not a run's folder: it has no status.json.\n")
