"""Finds a JDK, asks Maven for a class path once, compiles our few lines of Java."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from penstock.testing.services.cache import made_once
from penstock.testing.services.service import ServiceUnavailable, run_quietly

_JAVA = Path(__file__).parent / "java"


@dataclass(frozen=True, slots=True)
class Jdk:
    """A Java home with a compiler."""

    home: Path
    version: int

    @property
    def java(self) -> str:
        """The launcher."""
        return str(self.home / "bin" / "java")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One thing that Maven resolves, with all it depends on."""

    group: str
    name: str
    version: str
    type: str = "jar"


def find_jdk(at_least: int) -> Jdk:
    """The JDK of `JAVA_HOME` or of the `PATH` if it is new enough, else the newest one installed."""
    asked_for = [jdk for home in _chosen_homes() if (jdk := _jdk_at(home))]
    installed = sorted((jdk for home in _installed_homes() if (jdk := _jdk_at(home))), key=lambda jdk: -jdk.version)
    for jdk in [*asked_for, *installed]:
        if jdk.version >= at_least:
            return jdk
    seen = ", ".join(sorted({f"{jdk.version} in {jdk.home}" for jdk in [*asked_for, *installed]})) or "none"
    raise ServiceUnavailable(
        f"a JDK {at_least} or newer is needed (java and javac, in JAVA_HOME, on the PATH or in the usual folders); "
        f"found: {seen}"
    )


def java_program(
    name: str,
    main_class: str,
    artifacts: Sequence[Artifact],
    jdk: Jdk,
    announce: Callable[[], None],
) -> Path:
    """A folder with `classpath.txt` and the compiled `main_class`, ready to run with `-cp`.

    `announce` is called before anything is fetched. The jars stay in Maven's own repository; when one of them is gone
    everything is resolved again.
    """
    source = _JAVA / f"{main_class}.java"
    pom = _pom(name, artifacts)

    def make(folder: Path) -> None:
        maven = shutil.which("mvn")
        if maven is None:
            raise ServiceUnavailable(f"Maven (mvn) is needed to fetch {name} and is not on the PATH")
        announce()
        (folder / "pom.xml").write_text(pom)
        resolve = [maven, "-q", "-B", "dependency:build-classpath", "-Dmdep.outputFile=maven.txt"]
        try:
            run_quietly(resolve, cwd=folder, what=f"fetching {name}")
        except ServiceUnavailable:
            # Maven remembers a look-up that failed for a moment; -U makes it ask again.
            run_quietly([*resolve, "-U"], cwd=folder, what=f"fetching {name}")
        (folder / "native").mkdir()
        jars = []
        for entry in (folder / "maven.txt").read_text().strip().split(os.pathsep):
            if entry.endswith(".jar"):
                jars.append(entry)
            else:
                shutil.copy2(entry, folder / "native")
        class_path = os.pathsep.join([str(folder / "classes"), *jars])
        compiler = [str(jdk.home / "bin" / "javac"), "-nowarn", "-d", str(folder / "classes")]
        run_quietly([*compiler, "-cp", class_path, str(source)], cwd=folder, what=f"compiling {source.name}")
        (folder / "classpath.txt").write_text(class_path)

    def still_good(folder: Path) -> bool:
        return all(Path(entry).exists() for entry in (folder / "classpath.txt").read_text().split(os.pathsep))

    recipe = "\n".join([pom, source.read_text(), str(jdk.version)])
    return made_once(name, recipe, make, still_good=still_good)


def class_path(folder: Path) -> str:
    """The class path of a folder made by `java_program`."""
    return (folder / "classpath.txt").read_text()


def _pom(name: str, artifacts: Sequence[Artifact]) -> str:
    lines = [
        '<project xmlns="http://maven.apache.org/POM/4.0.0">',
        "  <modelVersion>4.0.0</modelVersion>",
        f"  <groupId>penstock</groupId><artifactId>{escape(name)}</artifactId><version>1</version>",
        "  <packaging>pom</packaging>",
        "  <dependencies>",
    ]
    for artifact in artifacts:
        parts = {"groupId": artifact.group, "artifactId": artifact.name, "version": artifact.version}
        if artifact.type != "jar":
            parts["type"] = artifact.type
        inside = "".join(f"<{tag}>{escape(text)}</{tag}>" for tag, text in parts.items())
        lines.append(f"    <dependency>{inside}</dependency>")
    return "\n".join([*lines, "  </dependencies>", "</project>", ""])


def _chosen_homes() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home)
    if compiler := shutil.which("javac"):
        yield Path(compiler).resolve().parent.parent


def _installed_homes() -> Iterator[Path]:
    home = Path.home()
    folders = ["/usr/lib/jvm/*", "/opt/java/*", "/opt/jdk*", f"{home}/.sdkman/candidates/java/*", f"{home}/.jdks/*"]
    if sys.platform == "darwin":
        folders += [
            "/Library/Java/JavaVirtualMachines/*/Contents/Home",
            f"{home}/Library/Java/JavaVirtualMachines/*/Contents/Home",
            "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
            "/usr/local/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
        ]
    for folder in folders:
        yield from sorted(Path("/").glob(folder.lstrip("/")))


def _jdk_at(home: Path) -> Jdk | None:
    if not all(os.access(home / "bin" / tool, os.X_OK) for tool in ("java", "javac")):
        return None
    try:
        release = (home / "release").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release, re.MULTILINE)
    return Jdk(home, int(found[1])) if found else None
