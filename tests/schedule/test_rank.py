"""A rank's process, without Ray."""

from __future__ import annotations

import gc
import importlib

import pytest

from wansweep.schedule.rank import _no_collection


def test_garbage_is_collected_again_after_an_import_also_after_one_that_fails() -> None:
    with _no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), _no_collection():
        importlib.import_module("wansweep.no_such_module")
    assert gc.isenabled()


def test_who_has_switched_collection_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with _no_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
