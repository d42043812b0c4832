"""Compare Detectron2's Python configs with upstream, like `zoo` for YAML configs.

Requires the upstream package:
python -m tests.goldens.lazy_zoo DETECTRON2_SOURCE [PART_OF_A_NAME ...]
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from d2serve.building.config import load_config
from d2serve.building.lazy_config import save_lazy_config
from d2serve.building.lazy_yaml import is_lazy_config
from d2serve.errors import ConfigError
from tests.goldens.zoo import PAGE, Row, compare_at_threshold, header

START, END = "<!-- table of Python configs -->\n", "<!-- end of table of Python configs -->\n"
FOLDERS = ("configs", "projects/ViTDet/configs")
# Folder of modules that configs import.
COMMON = "common"


def main(arguments: list[str]) -> int:
    """Update the rows of the selected configs in the page, and keep the other rows."""
    source, parts = Path(arguments[0]), arguments[1:]
    ok = True
    for config in _python_configs(source, parts):
        row = compare_config(config, str(config.relative_to(source)))
        print(row, flush=True)
        _write_row(row)
        ok = ok and row.is_ok
    return 0 if ok else 1


def compare_config(config: Path, name: str) -> Row:
    """Compare both networks at full size, with seeded weights, on one image."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "lazy_config.yaml"
        try:
            save_lazy_config(config, saved)
            load_config(saved)
        except ConfigError as error:
            return Row(name, f"refused: {_first_line(error)}")
        return compare_at_threshold(saved, name, _with_threshold)


def _python_configs(source: Path, parts: list[str]) -> Iterator[Path]:
    for folder in FOLDERS:
        for config in sorted((source / folder).rglob("*.py")):
            wanted = not parts or any(part in str(config) for part in parts)
            if wanted and COMMON not in config.parts:
                yield config


def _with_threshold(config: Path, threshold: float, folder: Path) -> Path:
    assert is_lazy_config(config)
    lines = config.read_text(encoding="utf-8").splitlines()
    key = "test_score_thresh:"
    changed = [
        f"{line.partition(key)[0]}{key} {threshold}" if key in line else line for line in lines
    ]
    path = folder / "lowered.yaml"
    path.write_text("\n".join(changed), encoding="utf-8")
    return path


def _first_line(error: ConfigError) -> str:
    """The first key of the error, and the number of further ones."""
    _, *keys = (
        line.strip() for line in str(error).replace(": model.", ":\nmodel.", 1).splitlines()
    )
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{keys[0]}{more}" if keys else str(error)


def _write_row(row: Row) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    table, _, after = rest.partition(END)
    other_rows = [line for line in table.splitlines()[2:] if not line.startswith(f"| {row.name} |")]
    lines = [*header(), *sorted([*other_rows, str(row)])]
    text = "".join(f"{line}\n" for line in lines)
    PAGE.write_text(f"{before}{START}{text}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
