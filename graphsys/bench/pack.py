"""How fast windows are packed, in bytes read and written per second."""

import shutil

from graphsys.bench.graph import drop_pages
from graphsys.bench.result import Measured
from graphsys.bench.setting import Setting
from graphsys.core.progress import Progress
from graphsys.storage.disk_speed import DiskSpeed, measure_disk
from graphsys.trainers.prepare import prepare


def measure_pack(setting: Setting, progress: Progress) -> Measured:
    """Sample and pack all windows of frozen samples, once per round; the limit is the same bytes, sequentially."""
    rounds, limits, peaks = [], [], {"sample": 0, "pack": 0}
    details: dict[str, float | str] = {}
    for index in range(setting.rounds):
        run = setting.run(f"pack-{index}", epochs=1, mode="packed", samples="frozen")
        drop_pages(setting.store)
        stages = prepare(run, progress).stages
        speed = measure_disk(setting.work)
        sample, pack = stages["sample"], stages["pack"]
        read, written = pack.device_bytes_read, pack.device_bytes_written
        rounds.append((read + written) / pack.seconds)
        limits.append((read + written) / at_disk_speed(read, written, speed))
        peaks = {name: max(peak, stages[name].peak_rss_bytes) for name, peak in peaks.items()}
        details = {
            "pack_s": pack.seconds,
            "sample_s": sample.seconds,
            "device_bytes_read": read,
            "device_bytes_written": written,
            "useful_bytes": pack.useful_bytes,
            "windows": pack.details["windows"],
            "sequential_read_bytes_s": speed.read_bytes_s,
            "sequential_write_bytes_s": speed.write_bytes_s,
            "limit_is": "the same bytes at the sequential speeds of this run",
        }
        shutil.rmtree(run.out)
    return Measured(rounds=tuple(rounds), limit=sum(limits) / len(limits), details=details, peak_memory_bytes=peaks)


def at_disk_speed(read: float, written: float, speed: DiskSpeed) -> float:
    """Return the seconds that reading and writing so many bytes sequentially takes, one after the other."""
    return max(read / speed.read_bytes_s + written / speed.write_bytes_s, 1e-9)
