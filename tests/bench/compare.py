"""What a request costs now, as a ratio to what it cost at another commit: `make costs REV=...`.

    python tests/bench/compare.py REV [--turns N] [--rounds N] [--only TEXT] [--peers FILE]

Builds the wheel of that commit and the one of this tree, each into a venv of its own, with the
extras that it names itself. Then processes of both measure in turns, in shuffled order (costs.py).
Above 1, it costs more now. A ratio is that of the 10th percentiles of all turns; behind it is
between what the middle half of the ratios of single turns lies. If that includes 1, there may be no
difference.

`--peers FILE` measures by a benchmark of session libraries instead, one that loads
peers_plugin.py and writes JSON. It finds Valkey as `redis-server`.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE.parent)]  # for realservers

EXTRAS = "crypto,redis,memcached,sqlalchemy"


def installed(source, folder):
    """Make a venv with the wheel of *source*; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    wheels = folder / "wheel"
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", wheels, source], check=True)
    [wheel] = wheels.iterdir()
    subprocess.run([*pip, "install", "-q", f"{wheel}[{EXTRAS}]"], check=True)
    return python


def checked_out(revision, folder):
    """Write the files of a commit into *folder*."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    folder.mkdir()
    subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)
    return folder


@contextlib.contextmanager
def servers(folder):
    """Start Valkey and memcached; yield their URLs."""
    from realservers.memcached import Memcached
    from realservers.valkey import Valkey

    with contextlib.ExitStack() as stack:
        urls = {}
        for name, make in (("redis", Valkey), ("memcached", Memcached)):
            place = folder / name
            place.mkdir()
            server = make(place)
            server.start()
            stack.callback(server.stop)
            urls[name] = server.url
        yield urls


def by_costs(python, rounds, urls):
    """Return what each row costs, by costs.py."""
    with tempfile.TemporaryDirectory(prefix="nocookie-costs-") as folder:
        command = [
            python,
            "-E",
            HERE / "costs.py",
            "--rounds",
            str(rounds),
            folder,
            json.dumps(urls),
        ]
        ran = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE)
    return json.loads(ran.stdout)


def by_peers(python, rounds, peers):
    """Return what each row costs, by another benchmark."""
    from realservers.valkey import program

    with tempfile.TemporaryDirectory(prefix="nocookie-costs-") as folder:
        out, programs = Path(folder) / "figures.json", Path(folder) / "bin"
        programs.mkdir()
        (programs / "redis-server").symlink_to(program("valkey-server"))
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        command = [
            python,
            "-E",
            peers,
            "--stat",
            "p10",
            "--rounds",
            str(rounds),
            "--only",
            "nocookie",
        ]
        command += ["--plugin", HERE / "peers_plugin.py", "--dir", folder, "--json", out]
        subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        cells = json.loads(out.read_text())
    return {
        f"{cell['peer'].removeprefix('nocookie ')}: {cell['op']}, {cell['size']}": cell["net"][
            "p10"
        ]
        for cell in cells
        if cell["peer"].startswith("nocookie ")
    }


def report(before, now):
    print("| row | before, us | now, us | now / before | single turns |")
    print("| --- | --- | --- | --- | --- |")
    for row in dict.fromkeys([*before[0], *now[0]]):
        old, new = ([turn[row] for turn in turns if row in turn] for turns in (before, now))
        if not (old and new):
            print(f"| {row} | {'' if old else 'not there'} | {'' if new else 'not there'} | | |")
            continue
        was, costs = (sorted(side)[len(side) // 10] for side in (old, new))
        ratios = sorted(b / a for a, b in zip(old, new, strict=True))
        quarter = len(ratios) // 4
        spread = f"{ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}"
        print(f"| {row} | {was:.2f} | {costs:.2f} | {costs / was:.2f} | {spread} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("revision")
    parser.add_argument("--turns", type=int, default=21, help="processes of each side")
    parser.add_argument("--rounds", type=int, default=21, help="samples of each row in a process")
    parser.add_argument("--only", default="", help="rows with this text in their name")
    parser.add_argument("--peers", type=Path, help="a benchmark that loads peers_plugin.py")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nocookie-compare-")))
        source = checked_out(arguments.revision, folder / "source")
        pythons = {
            "before": installed(source, folder / "before"),
            "now": installed(ROOT, folder / "now"),
        }
        if arguments.peers is None:
            measure, where = by_costs, stack.enter_context(servers(folder))
        else:
            measure, where = by_peers, arguments.peers.resolve()
        figures = {side: [] for side in pythons}
        for turn in range(arguments.turns):
            print(f"\rturn {turn + 1} of {arguments.turns}", end="", file=sys.stderr, flush=True)
            for side in random.sample(list(pythons), 2):
                measured = measure(pythons[side], arguments.rounds, where)
                figures[side].append(
                    {row: cost for row, cost in measured.items() if arguments.only in row}
                )
        print("\r", end="", file=sys.stderr)
        report(figures["before"], figures["now"])


if __name__ == "__main__":
    main()
