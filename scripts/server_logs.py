"""The log files of one TorchServe."""

from pathlib import Path

CONSOLE = "console.log"
SERVER = "ts_log.log"
MODEL = "model_log.log"
REQUESTS = "requests.log"


class ServerLogs:
    """What this run adds to the log files of a folder, which earlier runs may have written too."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self._starts = {log.name: log.stat().st_size for log in self.folder.glob("*.log")}

    def text(self, name: str) -> str:
        """What this run has written to the log of that name."""
        log = self.folder / name
        if not log.exists():
            return ""
        content = log.read_bytes()
        start = self._starts.get(name, 0)
        # A log smaller than it was has been rolled over, so all of it is new.
        return content[start if start <= len(content) else 0 :].decode(errors="replace")

    def tail(self, lines: int = 30) -> str:
        """The end of the log closest to the model that says anything."""
        texts = (self.text(name) for name in (MODEL, SERVER, CONSOLE))
        telling = next((text for text in texts if text.strip()), "(the logs are empty)")
        return "\n".join(telling.splitlines()[-lines:])
