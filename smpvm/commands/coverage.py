"""The command ``smpvm coverage``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smpvm.check.finding import load_all
from smpvm.commands.replay import PACKAGE
from smpvm.config import ConfigError
from smpvm.exits import CLEAN
from smpvm.explore.registry import builtin, find
from smpvm.explore.scenario import ScenarioClass
from smpvm.explore.trace.schedule import Schedule
from smpvm.fuzz.corpus import FILE, Corpus
from smpvm.fuzz.coverage import Coverage, text, uncalled
from smpvm.fuzz.scenario import of_program
from smpvm.fuzz.search import SETTINGS
from smpvm.repairs.catalogue import REPAIRS, choose


def coverage(options: Mapping[str, Any], echo: Callable[[str], None]) -> int:
    """Run what is named, and say what it reaches; returns the exit code.  Raises ConfigError,
    ScenarioError, CorpusError, FindingError."""
    choose(options["repairs"])
    repairs = tuple(REPAIRS) if "all" in options["repairs"] else tuple(options["repairs"])
    settings = replace(SETTINGS, repairs=repairs)
    seen = Coverage()
    for what in options["what"] or ("all",):
        for scenario in scenarios(what):
            seen.scenario(scenario, options["schedules"], settings, options["seed"])
    doc = seen.to_json()
    if options["as_json"]:
        echo(json.dumps(doc, indent=1))
    else:
        for line in text(doc, uncalled()):
            echo(line)
    return CLEAN


def scenarios(what: str) -> Iterator[ScenarioClass]:
    """Those of the suite (``all``), of a corpus, of a run's findings, or one by its name."""
    package, path = importlib.import_module(PACKAGE), Path(what)
    if what == "all":
        yield from (find(name, package) for name in builtin(package))
    elif (path / FILE).is_file():
        yield from (of_program(kept.program) for kept in Corpus.load(path).kept)
    elif (path / "findings").is_dir():
        for finding in load_all(path):
            if finding.schedule is not None:
                yield find(Schedule.parse(finding.schedule).scenario, package)
    elif path.is_dir():
        raise ConfigError(f"{what}: neither a corpus (with {FILE}) nor a run (with findings)")
    else:
        yield find(what, package)
