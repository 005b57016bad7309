"""What a run found: one table for people, the raw figures for programs."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from amorcebench.measure import Results

MEGABYTE = 1_000_000
MEBIBYTE = 1 << 20


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

    def row(self) -> tuple[str, ...]:
        mark = {True: "ok", False: "MISSED", None: "not run"}[self.met]
        measured = "-" if self.value is None else f"{self.value:.2f}{self.unit}"
        return (self.name, measured, f"{'at most' if self.at_most else 'at least'} {self.bound:g}{self.unit}", mark)


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
        header = ("", "seconds", "least", "most", "command", "CPU s", "peak MiB", "sent MB", f"x {self.base}")
        rows: list[tuple[str, ...]] = [header]
        group = ""
        for (current, side), samples in self.results.samples.items():
            if current != group:
                group = current
                rows.append((group, *[""] * (len(header) - 1)))
            seconds = [sample.seconds for sample in samples]
            median = self.results.median
            peak, ratio = median(group, side, "peak"), self.results.ratio(group, side, self.base)
            uploaded = median(group, side, "uploaded")
            rows.append(
                (
                    f"  {side}",
                    f"{median(group, side):.2f}",
                    f"{min(seconds):.2f}",
                    f"{max(seconds):.2f}",
                    f"{median(group, side, 'command'):.2f}",
                    f"{median(group, side, 'processor'):.1f}",
                    f"{peak / MEBIBYTE:.0f}" if peak else "",
                    f"{uploaded / MEGABYTE:.0f}" if uploaded else "",
                    f"{ratio:.2f}" if ratio else "",
                )
            )
        title = (
            f"{self.name}: {self.files:,} files, {self.size / 1e9:.2f} GB, seed {self.seed}, medians of {self.rounds} "
            f"round{'s' if self.rounds > 1 else ''}; seconds until all is on the disk"
        )
        promises = [("what is promised", "measured", "promise", ""), *(target.row() for target in self.targets)]
        return f"{title}\n\n{columns(rows)}\n\n{columns(promises)}"

    def json(self) -> str:
        samples = [
            {"group": group, "side": side, "round": number + 1, **dataclasses.asdict(sample)}
            for (group, side), taken in self.results.samples.items()
            for number, sample in enumerate(taken)
        ]
        targets = [{**dataclasses.asdict(target), "met": target.met} for target in self.targets]
        facts = {key: getattr(self, key) for key in ("name", "files", "size", "seed", "rounds", "versions")}
        return json.dumps({**facts, "samples": samples, "targets": targets}, indent=2) + "\n"

    def write(self, path: Path) -> None:
        path.write_text(self.json())


def columns(rows: list[tuple[str, ...]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
