"""The command `nocookie`: what it says, and its exit status."""

import re
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


def status(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return stop.value.code


def test_help_names_every_command(capsys):
    assert status("--help") == 0

    said = capsys.readouterr().out
    assert re.findall("^  ([a-z][a-z-]*)  ", said, re.MULTILINE) == list(cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_a_command_says_what_it_does_and_every_option(command, capsys):
    assert status(command, "--help") == 0

    said = capsys.readouterr().out
    assert said.startswith(f"Usage: nocookie {command} [OPTIONS]")
    without_help = re.findall(r"^  --[\w-]+(?: [A-Z]+)?$(?!\n {20})", said, re.MULTILINE)
    assert without_help == []


@pytest.mark.parametrize("arguments", [[], ["dmeo"], ["demo", "--prot", "1"], ["purge", "x"]])
def test_a_wrong_command_line_is_status_2(arguments, capsys):
    assert status(*arguments) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert "\nError: " in said.err


@pytest.mark.parametrize("port", ["x", "-1", "65536", "", "8000.5", "\u0663", "1_0"])
def test_a_bad_port_is_one_sentence_and_status_2(port, capsys):
    assert status("demo", f"--port={port}") == 2

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
    assert status("demo", "--host", "192.0.2.1", "--data-dir", str(tmp_path)) == 2

    (sentence,) = capsys.readouterr().err.splitlines()
    assert "cannot listen on 192.0.2.1, port 8000" in sentence


def test_a_data_dir_that_is_a_file_is_one_sentence_and_status_2(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")

    assert status("demo", "--data-dir", str(tmp_path / "file")) == 2

    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("nocookie demo: cannot use the folder ")
    assert (tmp_path / "file").read_text() == "mine"
