"""What can be seen of a worker from outside: times, metrics, and a line in the log a request."""

from handler.telemetry.times import StageTimes, Stopwatch

__all__ = ["StageTimes", "Stopwatch"]
