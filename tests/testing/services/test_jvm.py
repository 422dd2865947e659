from pathlib import Path

import pytest

from penstock.testing.services import ServiceUnavailable, jvm
from penstock.testing.services.jvm import Artifact, find_jdk, java_program


def install(folder: Path, version: str, tools=("java", "javac")) -> Path:
    (folder / "bin").mkdir(parents=True)
    for tool in tools:
        (folder / "bin" / tool).touch(mode=0o755)
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts JDKs where none of this machine's own are seen."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(jvm, "_installed_homes", lambda: sorted((tmp_path / "jvm").glob("*")))
    return tmp_path / "jvm"


def test_the_newest_installed_one_is_taken(installed):
    install(installed / "a", "21.0.2")
    newest = install(installed / "b", "25")
    install(installed / "c", "1.8.0_392")
    assert find_jdk(21) == jvm.Jdk(newest, 25)


def test_java_home_comes_first_when_it_is_new_enough(installed, tmp_path, monkeypatch):
    newest = install(installed / "newest", "25.0.1")
    home = install(tmp_path / "home", "21.0.2")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert find_jdk(21).home == home
    assert find_jdk(22).home == newest


def test_a_runtime_without_compiler_does_not_count(installed):
    install(installed / "jre", "25", tools=("java",))
    install(installed / "old", "17.0.15")
    with pytest.raises(ServiceUnavailable, match=r"a JDK 21 or newer is needed .*; found: 17 in .*/old$"):
        find_jdk(21)


def test_maven_is_missed_by_name(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path / "cache"))
    jdk = jvm.Jdk(install(installed / "jdk", "25"), 25)
    announced = []
    with pytest.raises(ServiceUnavailable, match=r"^Maven \(mvn\) is needed to fetch thing"):
        java_program("thing", "OpenSearchNode", [Artifact("g", "a", "1")], jdk, lambda: announced.append(1))
    assert announced == []
