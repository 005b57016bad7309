"""The command line of Benchmarks/run, which calls it inside the namespaces of a run."""

import argparse
import os
import sys
from pathlib import Path

from amorcebench.failure import BenchmarkFailure
from amorcebench.report import Report
from amorcebench.suites import SUITES
from amorcebench.workbench import HOME, Options, Workbench

FILES = {"restore": 100_000, "archive": 100_000, "backup": 100_000, "growth": 400_000}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="Benchmarks/run",
        description="Measures amorce against what people use today and prints one table of ratios.",
        epilog="Exit status: 0 measured, 1 an output differs from the source tree or a side failed; with --strict also "
        "where a promise is missed.",
    )
    parser.add_argument("name", choices=sorted(SUITES), help="what to measure")
    parser.add_argument("--files", type=int, help="files in the tree; 100,000, for growth 400,000")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs; 3")
    parser.add_argument("--seed", type=int, default=1, help="of the tree and its changes; 1")
    parser.add_argument("--json", type=Path, help="where to write the raw figures")
    parser.add_argument(
        "--amorce",
        type=Path,
        default=Path(os.environ.get("AMORCE_BINARY") or HOME.parent / "dist/amorce"),
        help="the binary; AMORCE_BINARY, else dist/amorce",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="SIDE", help="a side by its name in the table; repeat"
    )
    parser.add_argument("--strict", action="store_true", help="fail where a promise is missed")
    options = parser.parse_args(arguments)
    options.files = options.files or FILES[options.name]
    if options.files < 100 or options.rounds < 1:
        parser.error("--files is at least 100 and --rounds at least 1")
    return options


def main() -> int:
    options = parse(sys.argv[1:])
    amorce = options.amorce.resolve()
    if not os.access(amorce, os.X_OK):
        print(f"Benchmarks/run: no binary {amorce}; make it with scripts/build", file=sys.stderr)
        return 69
    bench = Workbench(Options(options.files, options.seed, amorce, tuple(options.only)))
    report = Report(options.name, options.files, 0, options.seed, options.rounds, bench.versions())
    try:
        SUITES[options.name](bench, report)
    except BenchmarkFailure as failure:
        print(f"Benchmarks/run: {failure}", file=sys.stderr)
        return 1
    print(report.text())
    if options.json:
        options.json.write_text(report.json())
    return 1 if options.strict and not report.met else 0


if __name__ == "__main__":
    sys.exit(main())
