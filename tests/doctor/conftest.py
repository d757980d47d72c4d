from __future__ import annotations

from tests.telemetry.conftest import nvml_stub, old_stub_library, stub_library

__all__ = ["nvml_stub", "old_stub_library", "stub_library"]
