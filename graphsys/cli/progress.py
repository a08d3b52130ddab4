"""Progress of long work: bars on a terminal, plain lines in a log."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from graphsys.core.progress import Task
from graphsys.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

QUIET_S = 2.0  # shorter work says nothing
LINE_S = 10.0  # longest silence of a log, in seconds
TICK_S = 0.5
_SCALES = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))  # least amount, divisor, letter


def format_amount(amount: float, unit: str) -> str:
    """Return an amount as people read it: "1.50 GiB", "12 batches", "3.4 M edges"."""
    return format_bytes(amount) if unit == "B" else f"{_number(amount)} {unit}"


def _number(amount: float) -> str:
    for least, scale, letter in _SCALES:
        if amount >= least:
            return f"{amount / scale:.1f} {letter}"
    return f"{amount:.0f}" if amount >= 10 or amount == int(amount) else f"{amount:.1f}"


def format_rate(amount: float, seconds: float, unit: str) -> str:
    """Return an amount per second; the unit is left out where it is no byte, since it stands beside the amount."""
    rate = amount / max(seconds, 1e-9)
    return f"{format_bytes(rate) if unit == 'B' else _number(rate)}/s"


class Meter:
    """How far one task is; several threads may advance it."""

    def __init__(self, title: str, total: float | None, unit: str, clock: Callable[[], float]) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0.0
        self.text = ""
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()

    def advance(self, amount: float = 1) -> None:
        """Add ``amount`` units of finished work."""
        with self._lock:
            self.done += amount

    def note(self, text: str) -> None:
        """Keep a short text to show beside the figures."""
        self.text = text

    @property
    def elapsed_s(self) -> float:
        """Seconds since the task began."""
        return self._clock() - self._started

    @property
    def share(self) -> float | None:
        """Finished part of the work in [0, 1]; None when the total is unknown."""
        return min(self.done / self.total, 1.0) if self.total else None

    @property
    def summary(self) -> str:
        """What was done, in how long, as one text."""
        elapsed_s = self.elapsed_s
        amount, rate = format_amount(self.done, self.unit), format_rate(self.done, elapsed_s, self.unit)
        return f"{self.title}: {amount} in {format_seconds(elapsed_s)}, {rate}"

    @property
    def figures(self) -> str:
        """Amount, rate and remaining time, as one text."""
        elapsed_s = self.elapsed_s
        parts = [format_amount(self.done, self.unit)]
        if self.total:
            done = format_bytes(self.done) if self.unit == "B" else _number(self.done)
            parts = [f"{done} of {format_amount(self.total, self.unit)}"]
        if self.done:
            parts.append(format_rate(self.done, elapsed_s, self.unit))
        if self.total and 0 < self.done < self.total:
            parts.append(f"{format_seconds((self.total - self.done) * elapsed_s / self.done)} left")
        return ", ".join([*parts, self.text] if self.text else parts)


class LineProgress:
    """Writes one line now and then: the first after two seconds, then at each tenth or every ten seconds."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic, ticking: bool = True) -> None:
        self._stream = stream
        self._clock = clock
        self._shown: dict[Meter, tuple[float, float]] = {}  # task -> (elapsed, share) of its latest line
        self._lock = threading.Lock()
        self._stop = threading.Event()
        # A stage may be silent for long inside one step: lines come from a clock, not from the stage's calls.
        self._thread = threading.Thread(target=self._run, name="graphsys-progress", daemon=True)
        if ticking:
            self._thread.start()

    def start(self, title: str, total: float | None, unit: str) -> Task:
        """Open a task of ``total`` units; None when the total is unknown."""
        meter = Meter(title, total, unit, self._clock)
        with self._lock:
            self._shown[meter] = (0.0, 0.0)
        return meter

    def finish(self, task: Task) -> None:
        """Close a task; say what it did if it was long."""
        assert isinstance(task, Meter)
        with self._lock:
            self._shown.pop(task, None)
        if task.elapsed_s >= QUIET_S:
            self.message(task.summary)

    def message(self, text: str) -> None:
        """Write one line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def tick(self) -> None:
        """Write the lines that are due."""
        with self._lock:
            due = [meter for meter, latest in self._shown.items() if _is_due(meter, *latest)]
            for meter in due:
                self._shown[meter] = (meter.elapsed_s, meter.share or 0.0)
        for meter in due:
            percent = "" if meter.share is None else f"{meter.share:4.0%}, "
            self.message(f"{meter.title}: {percent}{meter.figures}")

    def close(self) -> None:
        """Stop writing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            self.tick()


def _is_due(meter: Meter, latest_s: float, latest_share: float) -> bool:
    since = meter.elapsed_s - latest_s
    if since < QUIET_S:
        return False
    tenths = int((meter.share or 0.0) * 10) - int(latest_share * 10)
    return latest_s == 0.0 or since >= LINE_S or tenths > 0


class TerminalProgress:
    """Draws bars with rate and remaining time on standard error, and leaves a line where long work was."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._lock = threading.Lock()

    def start(self, title: str, total: float | None, unit: str) -> Task:
        """Open a bar of ``total`` units; None when the total is unknown."""
        with self._lock:
            return _BarMeter(title, total, unit, self._open())

    def finish(self, task: Task) -> None:
        """Remove the bar; leave a line if the work was long."""
        assert isinstance(task, _BarMeter)
        task.remove()
        if task.elapsed_s >= QUIET_S:
            self.message(task.summary)

    def message(self, text: str) -> None:
        """Print one line above the bars."""
        with self._lock:
            self._open().console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Remove what is drawn and give the terminal back."""
        if self._bars is not None:
            self._bars.stop()

    def _open(self) -> "RichProgress":
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        return self._bars


class _BarMeter(Meter):
    def __init__(self, title: str, total: float | None, unit: str, bars: "RichProgress") -> None:
        super().__init__(title, total, unit, time.monotonic)
        self._bars = bars
        self._id = bars.add_task(title, total=total, figures="")

    def advance(self, amount: float = 1) -> None:
        super().advance(amount)
        self._bars.update(self._id, completed=self.done, figures=self.figures)

    def note(self, text: str) -> None:
        super().note(text)
        self._bars.update(self._id, figures=self.figures)

    def remove(self) -> None:
        self._bars.remove_task(self._id)


def _bars() -> "RichProgress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        # Takes what the others leave of one line, whatever the width: the end of a long note is cut.
        TextColumn("{task.fields[figures]}", style="dim", table_column=Column(ratio=1, no_wrap=True)),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, expand=True, refresh_per_second=4)
