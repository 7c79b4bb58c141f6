"""Settings from a YAML file and the command line.

Errors are `ConfigError`s of one line: file, dotted key, what is allowed, and the nearest right key.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from edge.address import SECRET_WORDS, without_secret
from edge.config import DETECTORS, CameraEntry, Config
from edge.errors import ConfigError
from edge.givenfile import read_given
from edge.settings import Settings

FILE_MAX = 500_000  # bytes; the project's own, with all its comments, has 8,400
DEFAULT_PATHS = (Path("config.yaml"), Path("/etc/emotiond/config.yaml"))


def load(
    path: Path | None = None, overrides: Iterable[str] = (), source: str | None = None, detector: str | None = None
) -> Config:
    """Read a configuration file and lay another detector, `--set a.b=v` overrides, and another source over it.

    The source is that of the only camera then, also where the file has several.

    Without `path`, the first of `DEFAULT_PATHS` that exists, else the defaults. Raises ConfigError.
    """
    path = found(path)
    tree = {} if path is None else _read_yaml(path)
    config = _validate(tree, str(path))
    if detector is not None and detector != config.detector.kind:
        tree["detector"] = {"kind": detector}  # with its own defaults: the settings of one are not those of another
        config = _validate(tree, f"--detector {detector}")
    wrong: ConfigError | None = None
    for override in overrides:
        _apply_override(tree, override)
        try:
            config, wrong = _validate(tree, _shown_override(override)), None
        except ConfigError as error:
            wrong = wrong or error  # a later one may mend it: some settings only go together
    if wrong is not None:
        raise wrong
    if source is not None:
        tree.pop("cameras", None)
        tree["camera"] = {**(tree.get("camera") or {}), "source": source}
        config = _validate(tree, "--source")
    return config


def found(path: Path | None) -> Path | None:
    """The file that `load` reads if it is given `path`; None if there is none."""
    return path or next((candidate for candidate in DEFAULT_PATHS if candidate.is_file()), None)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(read_given(path, FILE_MAX).decode(), _PlainLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the settings: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {_yaml_problem(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values, as in the project's config.yaml")
    return tree


class _PlainLoader(yaml.SafeLoader):
    """Refuses what would lose a setting silently, or let a small file grow without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call] # not in its type hints
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not used here", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be one word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands here twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _yaml_problem(error: Exception) -> str:
    """One line that says where. PyYAML counts lines and columns from 0, people from 1."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0] or type(error).__name__
    problem = _in_one_line(problem)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else f"not YAML: {problem}"


def _in_one_line(text: str) -> str:
    """With line ends, and what else would steer a terminal, written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{_shown_override(override)}: must look like section.key=value")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{_shown_override(override)}: {_yaml_problem(error)}") from None
    *sections, last = key.split(".")
    if sections[:1] == ["cameras"] and isinstance(tree.get("cameras"), list):
        named = {str(camera.get("name")): camera for camera in tree["cameras"] if isinstance(camera, dict)}
        if len(sections) < 2 or sections[1] not in named:
            raise ConfigError(
                f"{_shown_override(override)}: must name a camera and its key: cameras.{next(iter(named))}.source"
            )
        sections, tree = sections[1:], named
    for section in sections:
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
        tree = tree[section]
    if (sections[-1:], last) == (["detector"], "kind") and value != tree.get("kind", "haar"):
        tree.clear()  # as with --detector: the settings of one are not those of another
    tree[last] = value


def _shown_override(override: str) -> str:
    key, equals, text = override.partition("=")
    if re.search(SECRET_WORDS, key, re.IGNORECASE):
        text = "..."  # also where no such setting exists: people try `mqtt.password`
    return _in_one_line(f"--set {key}{equals}{without_secret(text)}")


def _validate(tree: Mapping[str, Any], origin: str) -> Config:
    # An empty section (`mqtt:` and nothing below it) is null in YAML and means the defaults.
    tree = {key: value for key, value in tree.items() if value is not None or key not in Config.model_fields}
    try:
        # By way of JSON: pydantic's strict mode takes a path from JSON's text, but not from a Python string.
        return Config.model_validate_json(json.dumps(tree, default=str))
    except (ValueError, TypeError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(f"{origin}: holds values that no setting can have: {error}") from None
        problems = error.errors()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{origin}: {_in_one_line(_explain(problems[0], tree))}{more}") from None


def _explain(problem: ErrorDetails, tree: Mapping[str, Any]) -> str:
    # Settings are two levels deep, below a camera of several as much; the rest of a location is pydantic's own: a
    # union's branch (`source.int`, `detector.haar.min_face`).
    location, above = [str(part) for part in problem["loc"]], list[str]()
    model: type[Settings] = Config
    if location[0:1] == ["cameras"] and len(location) > 1:
        number = int(location[1])
        entry = tree["cameras"][number]
        name = entry.get("name") if isinstance(entry, dict) else None
        above, model = ["cameras", name if isinstance(name, str) else f"#{number + 1}"], CameraEntry
        location = location[2:]
    variant = location.pop(1) if location[1:2] and location[0] == "detector" and location[1] in DETECTORS else "haar"
    keys = location[:2] + ["kind"] * (problem["type"] == "kind")
    dotted = ".".join(above + keys)
    if problem["type"] == "json_invalid":
        return "holds text that is not Unicode"
    if problem["type"] != "extra_forbidden":
        rule = (
            problem["msg"]
            .removeprefix("Value error, ")
            .replace("Input should be", "must be")
            .replace("String should", "must")
        )
        rule = rule.replace("a valid array", "a list")
        given = "" if re.search(SECRET_WORDS, dotted) else _given(problem)
        return f"{dotted}: {rule}{given}".removeprefix(": ")
    *sections, wrong = keys
    allowed = _fields_at(model, sections, variant)
    nearest = difflib.get_close_matches(wrong, allowed, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known keys: {', '.join(allowed)}"
    return f"{dotted}: unknown key, {hint}"


def _given(problem: ErrorDetails) -> str:
    given = problem.get("input")
    too_much = isinstance(given, dict) or (isinstance(given, list) and any(isinstance(one, dict) for one in given))
    return "" if too_much else f", not {json.dumps(_without_secrets(given))[:80]}"


def _without_secrets(given: Any) -> Any:
    """People write passwords into addresses, also where they are refused."""
    if isinstance(given, list):
        return [_without_secrets(each) for each in given]
    return without_secret(given) if isinstance(given, str) else given


def _fields_at(model: Any, sections: list[str], variant: str) -> list[str]:
    for section in sections:
        model = DETECTORS[variant] if section == "detector" else Config.model_fields[section].annotation
    return list(model.model_fields)
