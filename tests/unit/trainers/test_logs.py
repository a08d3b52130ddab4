import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from graphsys.trainers.logs import RunLog, read_log


def test_every_line_is_json_with_its_kind_and_step(tmp_path: Path) -> None:
    with RunLog(tmp_path, num_lines=0, step=0) as log:
        log.write("step", 50, {"loss": 0.5})
        log.write("epoch", 60, {"train": {"loss": 0.4}})
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"kind": "step", "step": 50, "loss": 0.5},
        {"kind": "epoch", "step": 60, "train": {"loss": 0.4}},
    ]


def test_a_resumed_log_is_cut_back_to_the_lines_of_its_checkpoint(tmp_path: Path) -> None:
    with RunLog(tmp_path, num_lines=0, step=0) as log:
        for step in range(5):
            log.write("step", step, {"loss": float(step)})
    with RunLog(tmp_path, num_lines=3, step=2) as log:
        assert [line["step"] for line in log.lines] == [0, 1, 2]
        log.write("step", 3, {"loss": 33.0})
        assert log.num_lines == 4
    assert [line["loss"] for line in read_log(tmp_path)] == [0.0, 1.0, 2.0, 33.0]


def test_half_a_line_left_by_a_kill_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"kind": "step", "step": 1}\n{"kind": "st')
    with RunLog(tmp_path, num_lines=2, step=1) as log:
        assert log.num_lines == 1


def test_a_log_that_was_deleted_starts_anew(tmp_path: Path) -> None:
    with RunLog(tmp_path, num_lines=7, step=100) as log:
        log.write("step", 101, {"loss": 1.0})
    assert len(read_log(tmp_path)) == 1


def test_tensorboard_shows_nested_numbers_and_hides_what_a_resume_repeats(tmp_path: Path) -> None:
    with RunLog(tmp_path, num_lines=0, step=0) as log:
        for step in (1, 2, 3):
            log.write("epoch", step, {"val": {"accuracy": step / 10}, "final": "no"})
    with RunLog(tmp_path, num_lines=2, step=2) as log:
        log.write("epoch", 3, {"val": {"accuracy": 0.9}})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = [(event.step, round(event.value, 3)) for event in events.Scalars("epoch/val/accuracy")]
    assert points == [(1, 0.1), (2, 0.2), (3, 0.9)]
