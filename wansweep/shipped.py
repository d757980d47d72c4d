"""What ships beside the code: where the configs are, and the families' official defaults without composing a sweep."""

from __future__ import annotations

from pathlib import Path

import yaml

from wansweep.case import Model


def conf_dir() -> Path:
    """The folder of the shipped configs: conf/ at the top of a checkout, or the copy inside an installed wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "config.yaml").is_file():
        return checkout / "conf"
    return package / "conf"


def official(model: Model) -> dict[str, object]:
    """The official defaults of a family's case fields (conf/model/<model>.yaml)."""
    document = yaml.safe_load((conf_dir() / "model" / f"{model}.yaml").read_text())
    return dict(document["presets"]["official"]["fields"])
