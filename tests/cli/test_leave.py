import os
import signal
import subprocess
import sys

END = "from pscr_engine.cli.leave import leave\nleave({code})"
WORK = """
import atexit, os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

class Trap:
    def __del__(self):
        os.abort()  # as C++ does when its threads are ended by force

trap = Trap()
atexit.register(lambda: print("at exit"))
pool = ThreadPoolExecutor(1)
pool.submit(lambda: (time.sleep(0.3), print("task done")))
threading.Thread(target=lambda: (time.sleep(0.2), print("thread done"))).start()
sys.stdout.write("unflushed ")
"""


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(code):
    return subprocess.run([sys.executable, "-c", code], env=BUFFERED, capture_output=True, text=True)


def test_the_process_ends_without_taking_the_interpreter_apart():
    trapped = run(WORK)
    assert trapped.returncode == -signal.SIGABRT, "the trap does not work"
    for code in (0, 3):
        outcome = run(WORK + END.format(code=code))
        assert outcome.returncode == code, outcome.stderr
        assert outcome.stdout == "unflushed thread done\ntask done\nat exit\n"


def test_output_that_nobody_reads_is_no_success():
    code = "import sys\nsys.stdout.write('x')\n" + END.format(code=0)
    process = subprocess.Popen([sys.executable, "-c", code], env=BUFFERED, stdout=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(60) == 120


def test_streams_that_the_shell_has_closed():
    command = f"{sys.executable} -c '{END.format(code=0)}' >&- 2>&-"
    assert subprocess.run(["bash", "-c", command]).returncode == 0
