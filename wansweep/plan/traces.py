"""Traces of networks, remembered in a file of the cache folder, by network, shape and the libraries' versions. No torch until one is new.

A long video is not traced whole. A VAE works through latent frames one by one, so beyond the fourth each adds the same; of a transformer's
tokens that are split among ranks, the slope between two lengths tells what the share costs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from wansweep.cache import cache_dir
from wansweep.levers import Dtype
from wansweep.plan.architecture import TextEncoder, Transformer, Vae

# From here on a VAE's frames cost the same each (tests/plan/test_traces.py holds longer traces to it).
_STEADY_FRAMES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """One forward of a network.

    Attributes:
        peak_bytes: Most that was live at once beyond the weights, inputs included.
        moved_bytes: Read and written by memory-bound kernels.
        kernels: Kernels of all kinds.
        weight_bytes: Of parameters and buffers, whole network, as it is kept.
    """

    peak_bytes: int
    moved_bytes: int
    kernels: int
    weight_bytes: int

    def towards(self, other: Traced, steps: float) -> Traced:
        """On the line through two traces, so many of their distances beyond the first."""

        def on(first: int, second: int) -> int:
            return round(first + steps * (second - first))

        return Traced(
            peak_bytes=on(self.peak_bytes, other.peak_bytes),
            moved_bytes=on(self.moved_bytes, other.moved_bytes),
            kernels=on(self.kernels, other.kernels),
            weight_bytes=self.weight_bytes,
        )


def cache_file() -> Path:
    """Where traces are kept from one call to the next."""
    return cache_dir() / "traces.json"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' remarks on optional packages, which loading them for a trace would put on a plan's stderr."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class Traces:
    """Traces by what was traced.

    Args:
        file: Kept there too; null keeps them in memory alone.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, Traced] = {}
        self._asked: dict[tuple[object, ...], Traced] = {}
        self._new = False
        self._libraries = f"diffusers {version('diffusers')}, torch {version('torch')}"
        # A cache that cannot be read is made again; it holds nothing else.
        with contextlib.suppress(OSError, ValueError, TypeError):
            self._known = {key: Traced(**row) for key, row in json.loads(file.read_text()).items()} if file else {}

    def transformer(
        self, numbers: Transformer, size: tuple[int, int, int], *, batch: int, dtype: Dtype, text_tokens: int, ranks: int = 1
    ) -> Traced:
        """A forward of the denoiser on a latent of (frames, height, width), of whose tokens a rank has one part of so many."""

        def at(frames: int) -> Traced:
            def trace() -> Traced:
                from wansweep.plan.trace import trace_transformer

                return trace_transformer(numbers, (frames, *size[1:]), batch=batch, dtype=dtype, text_tokens=text_tokens)

            return self._get((numbers, frames, size[1:], batch, dtype, text_tokens), trace)

        frames = size[0]
        if ranks == 1:
            return at(frames)
        # Twice the frames is twice the tokens, so the line has the rank's share of them, too.
        return at(frames).towards(at(2 * frames), 1 / ranks - 1)

    def text_encoder(self, numbers: TextEncoder, *, dtype: Dtype) -> Traced:
        """The encoder on one prompt."""

        def trace() -> Traced:
            from wansweep.plan.trace import trace_text_encoder

            return trace_text_encoder(numbers, dtype=dtype)

        return self._get((numbers, dtype), trace)

    def vae(self, numbers: Vae, size: tuple[int, int, int], *, encode: bool, dtype: Dtype, batch: int = 1) -> Traced:
        """A decode from, or an encode into, a latent of (frames, height, width), untiled."""

        def at(frames: int) -> Traced:
            def trace() -> Traced:
                from wansweep.plan.trace import trace_vae

                return trace_vae(numbers, (frames, *size[1:]), encode=encode, dtype=dtype, batch=batch)

            return self._get((numbers, frames, size[1:], encode, dtype, batch), trace)

        if size[0] <= _STEADY_FRAMES:
            return at(size[0])
        return at(_STEADY_FRAMES - 1).towards(at(_STEADY_FRAMES), size[0] - _STEADY_FRAMES + 1)

    def save(self) -> None:
        """Keep what is new; a cache folder that cannot be written costs only the time of the next call."""
        if self._file is None or not self._new:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._file.parent, delete=False) as scratch:
                json.dump({key: asdict(traced) for key, traced in self._known.items()}, scratch)
            Path(scratch.name).replace(self._file)
            self._new = False

    def _get(self, what: tuple[object, ...], trace: Callable[[], Traced]) -> Traced:
        if what not in self._asked:
            key = hashlib.sha256(f"{self._libraries} {what}".encode()).hexdigest()[:24]
            if key not in self._known:
                with _quiet():
                    self._known[key] = trace()
                self._new = True
            self._asked[what] = self._known[key]
        return self._asked[what]
