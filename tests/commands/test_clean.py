"""dl-lab clean: a dry run without --yes, and it never removes what somebody may still need."""

from __future__ import annotations


def fill(run):
    (run / "checkpoints").mkdir()
    for name in ("last.pt", "previous.pt", "best.safetensors"):
        (run / "checkpoints" / name).write_bytes(b"x" * 1000)
    (run / ".status.json.1-2.tmp").write_text("half")
    return run


def files(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_removed_without_yes(command, make_run, tmp_path):
    fill(make_run())
    before = files(tmp_path)
    status, out, _ = command("clean")
    assert status == 0
    assert files(tmp_path) == before
    assert "This would free 2.0 kB" in out


def test_only_checkpoints_of_finished_runs_go(command, make_run):
    done, killed, failed, running = (fill(make_run(state=state)) for state in ("done", "killed", "failed", "running"))
    kept = files(done) - {"checkpoints/last.pt", "checkpoints/previous.pt", ".status.json.1-2.tmp"}
    before = files(running)
    assert command("clean", "--yes")[0] == 0
    assert files(done) == kept
    assert "checkpoints/best.safetensors" in kept
    assert "checkpoints/last.pt" in files(killed) & files(failed)
    assert files(running) == before
    assert command("clean", "--yes", "--failed")[0] == 0
    assert failed.exists(), "a failed run with a checkpoint can be resumed"
    for path in (failed / "checkpoints").glob("*.pt"):
        path.unlink()
    assert command("clean", "--yes", "--failed")[0] == 0
    assert not failed.exists()
    assert killed.exists()
    assert "Nothing to clean" in command("clean")[1]


def test_older_tries_of_a_sweep_go(command, make_sweep, make_run):
    folder = make_sweep({(0.5, 0): 0.5})
    other = make_run().parent / "set_aside"  # not a sweep's: somebody's own folder
    other.mkdir()
    for aside in (folder / "set_aside", other):
        aside.mkdir(exist_ok=True)
        (aside / "something").write_text("x")
    assert command("clean", "--yes")[0] == 0
    assert not (folder / "set_aside").exists()
    assert (other / "something").exists()


def test_it_takes_the_names_that_other_verbs_take(command, make_run, make_sweep):
    make_sweep({(0.5, 0): 0.5})
    make_run()  # shares its id with the job of the sweep
    run = fill(make_run())
    for name in ("00000001", str(run)):
        assert "2.0 kB" in command("clean", name)[1]
    assert "Nothing to clean in outputs/sweeps" in command("clean", "abcd")[1]
    assert "No run 'nowhere'" in command("clean", "nowhere")[2]
