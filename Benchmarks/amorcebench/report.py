"""What a run found: one table for people, the raw figures for programs."""

import dataclasses
import json
from dataclasses import dataclass, field

from amorcebench.measure import Results

MEGABYTE = 1_000_000
MEBIBYTE = 1 << 20

# The cells of one line of a table.
Row = tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A promise about a figure: at least, or at most, so much."""

    name: str
    value: float | None
    bound: float
    at_most: bool = False
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """None where the sides that it needs were not run."""
        if self.value is None:
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def row(self) -> Row:
        mark = {True: "ok", False: "MISSED", None: "not run"}[self.met]
        measured = "-" if self.value is None else f"{self.value:.2f}{self.unit}"
        return (self.name, measured, f"{'at most' if self.at_most else 'at least'} {self.bound:.3g}{self.unit}", mark)


@dataclass
class Report:
    name: str
    files: int
    size: int
    seed: int
    rounds: int
    versions: dict[str, str]
    results: Results = field(default_factory=Results)
    targets: list[Target] = field(default_factory=list)
    # The side that the others are divided by.
    base: str = "amorce"

    @property
    def met(self) -> bool:
        return all(target.met is not False for target in self.targets)

    def text(self) -> str:
        title = (
            f"{self.name}: {self.files:,} files, {self.size / 1e9:.2f} GB, seed {self.seed}, medians of {self.rounds} "
            f"round{'s' if self.rounds > 1 else ''}; seconds until all is on the disk"
        )
        rows: list[Row] = [
            ("", "seconds", "least", "most", "command", "CPU s", "peak MiB", "sent MB", f"x {self.base}")
        ]
        for group in dict.fromkeys(group for group, _ in self.results.samples):
            rows.append((group, *[""] * 8))
            rows += [self.row(group, side) for current, side in self.results.samples if current == group]
        promises = [("what is promised", "measured", "promise", ""), *(target.row() for target in self.targets)]
        return f"{title}\n\n{columns(rows)}\n\n{columns(promises)}"

    def row(self, group: str, side: str) -> Row:
        seconds = [sample.seconds for sample in self.results.samples[group, side]]

        def median(what: str, decimals: int, unit: int = 1) -> str:
            value = self.results.median(group, side, what)
            return "" if value is None else f"{value / unit:.{decimals}f}"

        ratio = self.results.ratio(group, side, self.base)
        return (
            f"  {side}",
            median("seconds", 2),
            f"{min(seconds):.2f}",
            f"{max(seconds):.2f}",
            median("command", 2),
            median("processor", 1),
            median("peak", 0, MEBIBYTE),
            median("uploaded", 1, MEGABYTE),
            "" if ratio is None else f"{ratio:.2f}",
        )

    def json(self) -> str:
        samples = [
            {"group": group, "side": side, "round": number + 1, **dataclasses.asdict(sample)}
            for (group, side), taken in self.results.samples.items()
            for number, sample in enumerate(taken)
        ]
        targets = [{**dataclasses.asdict(target), "met": target.met} for target in self.targets]
        facts = {key: getattr(self, key) for key in ("name", "files", "size", "seed", "rounds", "versions")}
        return json.dumps({**facts, "samples": samples, "targets": targets}, indent=2) + "\n"


def columns(rows: list[Row]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
