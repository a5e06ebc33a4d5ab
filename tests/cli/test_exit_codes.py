import subprocess
import sys


def test_an_interrupt_within_exec_ends_with_130_too():
    program = """
import click, sys
from pscr_engine.cli.run_command import run

@click.command()
def command():
    exec("raise KeyboardInterrupt")

sys.exit(run(command))
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (process.returncode, process.stderr.strip()) == (130, "interrupted")
