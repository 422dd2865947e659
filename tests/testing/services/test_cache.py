import subprocess
import sys

import pytest

from penstock.testing.services.cache import cache_folder, made_once


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_the_folder_can_be_chosen(cache):
    assert cache_folder() == cache


def test_a_checkout_keeps_its_parts_in_the_project(monkeypatch):
    monkeypatch.delenv("PENSTOCK_CACHE_DIR")
    folder = cache_folder()
    assert folder.name in (".cache", "penstock")
    assert folder.is_absolute()


def test_the_same_recipe_is_made_once():
    made = []

    def make(folder):
        made.append(folder)
        (folder / "part").write_text("x")

    first = made_once("thing", "recipe 1", make)
    assert made_once("thing", "recipe 1", make) == first
    assert made_once("thing", "recipe 2", make) != first
    assert len(made) == 2


def test_a_broken_making_leaves_nothing_that_looks_finished():
    def interrupted(folder):
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once("thing", "recipe", interrupted)
    folder = made_once("thing", "recipe", lambda folder: (folder / "whole").write_text("x"))
    assert not (folder / "half").exists()
    assert (folder / "whole").exists()


def test_what_is_no_longer_good_is_made_again():
    def make(folder):
        (folder / "part").write_text("x")

    folder = made_once("thing", "recipe", make, still_good=lambda folder: (folder / "part").exists())
    (folder / "part").unlink()
    made_once("thing", "recipe", make, still_good=lambda folder: (folder / "part").exists())
    assert (folder / "part").exists()


def test_processes_wait_for_the_one_that_makes(cache):
    script = """
import time, sys
from penstock.testing.services.cache import made_once

def make(folder):
    with open(sys.argv[1], "a") as calls:
        calls.write("made\\n")
    time.sleep(0.3)
    (folder / "part").write_text("x")

print((made_once("thing", "recipe", make) / "part").read_text())
"""
    calls = cache / "calls"
    argv = [sys.executable, "-c", script, str(calls)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=20)[0] for process in running] == ["x\n"] * 3
    assert calls.read_text() == "made\n"
