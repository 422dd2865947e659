"""`penstock demo` as a user starts it: its own servers, the blueprint, a pipeline process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

DEMO = [sys.executable, "-m", "penstock.cli", "demo"]


def environment(folder):
    return {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}


def test_once_proves_that_the_index_equals_the_table(ministack, osmem, tmp_path):
    done = subprocess.run(
        [*DEMO, "--once"], env=environment(tmp_path), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 puts, 25 changes, 15 deletes" in done.stdout
    assert "the index equals the table: 46 documents" in done.stdout
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_an_interrupt_ends_everything(ministack, osmem, tmp_path):
    running = subprocess.Popen(DEMO, env=environment(tmp_path), stdout=subprocess.PIPE, text=True)
    try:
        lines = []
        for line in running.stdout:
            lines.append(line)
            if re.search(r"[1-9]\d* puts .* [1-9]\d* documents .* p99 \d+ ms", line):
                break
        else:
            raise AssertionError("".join(lines))
        children = _children(running.pid)
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait()
        running.stdout.close()
    assert "stopped" in rest
    assert list(tmp_path.iterdir()) == []
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in children):
        assert time.monotonic() < deadline, f"some of {children} are still there"
        time.sleep(0.05)


def _children(pid):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in listed.stdout.split()]


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
