"""The command `nocookie`: what it says, and its exit status."""

import socket
import subprocess
import sys
from importlib.metadata import version

import pytest

from nocookie import cli


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "nocookie", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_the_module_runs_as_the_command_does():
    done = run("--version")

    assert (0, f"nocookie {version('nocookie')}\n", "") == (
        done.returncode,
        done.stdout,
        done.stderr,
    )


def test_the_command_is_installed(capsys):
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="nocookie")

    assert cli.main is script.load()


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])

    assert stop.value.code == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["dmeo"], ["demo", "--prot", "1"]])
def test_a_wrong_command_line_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)

    assert stop.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("port", ["x", "-1", "65536", "", "8000.5", "\u0663", "1_0"])
def test_a_bad_port_is_one_sentence_and_status_2(port, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", f"--port={port}"])

    assert stop.value.code == 2
    assert f"a port is a number from 0 to 65535, not {port!r}" in capsys.readouterr().err


def test_a_port_in_use_is_one_sentence_and_status_2(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("demo", "--port", str(port), "--data-dir", str(tmp_path / "data"))

    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"nocookie demo: cannot listen on 127.0.0.1, port {port}: ")


def test_a_host_that_is_not_here_is_one_sentence_and_status_2(tmp_path, capsys):
    # 192.0.2.0/24 is for documentation (RFC 5737): nobody has it.
    assert cli.main(["demo", "--host", "192.0.2.1", "--data-dir", str(tmp_path)]) == 2

    (sentence,) = capsys.readouterr().err.splitlines()
    assert "cannot listen on 192.0.2.1, port 8000" in sentence


def test_a_data_dir_that_is_a_file_is_one_sentence_and_status_2(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")

    assert cli.main(["demo", "--data-dir", str(tmp_path / "file")]) == 2

    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("nocookie demo: cannot use the folder ")
    assert (tmp_path / "file").read_text() == "mine"
