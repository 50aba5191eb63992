"""What a request costs with the nocookie that is installed, on each store, as JSON on stdout.

    python tests/bench/costs.py --rounds N FOLDER '{"redis": URL, "memcached": URL}'

Microseconds, less what the same request costs without a session: the 10th percentile of N rounds in
shuffled order. compare.py runs this for two commits in turns; so here is no name but public ones.
"""

import argparse
import gc
import json
import random
import sys
import warnings

warnings.simplefilter("ignore")

from cells import OPERATIONS, Bare, Cell, Nocookie  # noqa: E402

import nocookie  # noqa: E402

SECRET = "a secret for benchmarks, and nothing else"


def libraries(folder, urls):
    yield "memory", Nocookie(type="memory")
    yield "memory, secret", Nocookie(type="memory", secret=SECRET)
    yield "memory, query", Nocookie(type="memory", find_id="query:sid")
    yield "file", Nocookie(type="file", data_dir=folder)
    for store, url in urls.items():
        yield store, Nocookie(type=store, url=url)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("folder")
    parser.add_argument("urls", type=json.loads)
    arguments = parser.parse_args()
    if not nocookie.__file__.startswith(sys.prefix):
        sys.exit(f"this is not the installed nocookie: {nocookie.__file__}")
    bare = Cell(Bare(), "untouched", "small")
    cells = {}
    for name, library in libraries(arguments.folder, arguments.urls):
        for operation in OPERATIONS:
            try:
                cells[f"{name}: {operation}"] = Cell(library, operation, "small")
            except Exception as error:  # what this nocookie cannot do yet is a row less
                print(f"no {name}: {operation}: {error!r}", file=sys.stderr)
    order = [bare, *cells.values()]
    gc.collect()
    gc.freeze()
    for _ in range(arguments.rounds):
        random.shuffle(order)
        for cell in order:
            gc.disable()
            cell.samples.append(cell.sample() / cell.calls)
            gc.enable()
    json.dump({row: (cell.figure - bare.figure) * 1e6 for row, cell in cells.items()}, sys.stdout)


if __name__ == "__main__":
    main()
