"""The serving core: pipeline, settings, telemetry and loading of archives."""
